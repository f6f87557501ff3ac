-- Marks the jobs of an event as cancelled.
--
-- KEYS: marks. ARGV: the mark, how long marks are kept in milliseconds, how many are kept.
-- Returns: the number of the mark.
--
-- Before: the mark may be there or not.
-- After: it is there, with the highest number of all. Marks that are too old, and the oldest ones beyond
-- the number to keep, are removed, some of each in a call.
-- May race with: other calls that mark, each of which gets a number of its own. A repetition gives the
-- mark a higher number, which cancels nothing that the first did not.
local REMOVED_MAX = 100
local marks = KEYS[1]
local mark, keep, count = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = now()
local number = math.max(clock, last_number(marks) + 1)
redis.call('ZADD', marks, whole(number), mark)
local function remove(those)
  if #those > 0 then redis.call('ZREM', marks, unpack(those)) end
end
local oldest = whole(clock - keep)
remove(redis.call('ZRANGE', marks, '-inf', '(' .. oldest, 'BYSCORE', 'LIMIT', 0, REMOVED_MAX))
local excess = math.min(redis.call('ZCARD', marks) - count, REMOVED_MAX)
if excess > 0 then remove(redis.call('ZRANGE', marks, 0, excess - 1)) end
return whole(number)
