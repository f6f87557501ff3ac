-- Removes the mark that cancels the jobs of an event.
--
-- KEYS: marks. ARGV: the mark.
-- Returns: 1 if it was there, 0 if not.
--
-- Before: the mark may be there or not.
-- After: it is not. If it was, the member without a name has the highest number, so that processes which
-- know the mark read all marks again.
-- May race with: others that mark or remove. A repetition after a lost answer finds nothing, and leaves the number that
-- the first call set. The removal comes first, because a server out of memory accepts what follows it.
local marks = KEYS[1]
if not redis.call('ZRANK', marks, ARGV[1]) then return 0 end
local number = math.max(now(), last_number(marks) + 1)
redis.call('ZREM', marks, ARGV[1])
redis.call('ZADD', marks, whole(number), '')
return 1
