-- Reads marks of cancelled jobs.
--
-- KEYS: marks. ARGV: the number after which to begin, marks at most.
-- Returns: the marks and their numbers alternately, in the order of the numbers.
--
-- Before and after: nothing is changed.
-- May race with: calls that mark; their marks get higher numbers.
local from, limit = '(' .. ARGV[1], ARGV[2]
return redis.call('ZRANGE', KEYS[1], from, LAST_TIME, 'BYSCORE', 'LIMIT', 0, limit, 'WITHSCORES')
