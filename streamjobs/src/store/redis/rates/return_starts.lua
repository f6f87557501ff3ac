-- Returns starts that were not used.
--
-- KEYS: rate. ARGV: the TAT after their grant, how many starts, the microseconds from each to the next.
-- Returns: 1 if they can be granted again, or else 0.
--
-- Before: the starts were granted, and not used.
-- After: if nothing was granted after them, `tat` is what it would be without their grant. Otherwise
-- nothing has changed, and the starts are lost.
-- May race with: other processes that ask; a repetition finds another TAT.
local state, tat = KEYS[1], ARGV[1]
if redis.call('HGET', state, 'tat') ~= tat then return 0 end
redis.call('HDEL', state, '')
redis.call('HSET', state, 'tat', whole(math.ceil(tonumber(tat) - tonumber(ARGV[2]) * tonumber(ARGV[3]))))
return 1
