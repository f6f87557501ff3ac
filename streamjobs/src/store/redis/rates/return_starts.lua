-- Gives back starts that were not used.
--
-- KEYS: rate. ARGV: the TAT that their grant has left, how many, the microseconds from each to the next.
-- Returns: 1 if they can be granted again, or else 0.
--
-- Before: the starts were granted, and not used.
-- After: `tat` is what it would be had they not been granted, if nothing was granted after them. Otherwise
-- nothing has changed, and they are lost.
-- May race with: other processes that ask; a repetition finds another TAT.
local state, tat = KEYS[1], ARGV[1]
if redis.call('HGET', state, 'tat') ~= tat then return 0 end
redis.call('HDEL', state, '')
redis.call('HSET', state, 'tat', whole(math.ceil(tonumber(tat) - tonumber(ARGV[2]) * tonumber(ARGV[3]))))
return 1
