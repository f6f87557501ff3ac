-- Sets the number of a group's limit that replaces the code's, or removes it.
--
-- KEYS: group hash. ARGV: what the limit counts together ("key" or "group"), the number, and what the operator said, as
-- JSON; or nothing in place of each, for the number of the code.
-- Returns: 1 if the number changed, or else 0.
--
-- Before: the group may have a limit or not, and exist or not.
-- After: `limit` has what is given and the time, or is gone. The scripts of holds read it in each call.
-- May race with: takes, ends and sweeps, which follow the number that they find. The first write is a no-op removal,
-- which a server out of memory accepts.
local hash, counted, limit, note = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
if counted == '' then return redis.call('HDEL', hash, 'limit') end
local before, set = redis.call('HGET', hash, 'limit') or '', counted .. ' ' .. limit .. ' '
redis.call('HDEL', hash, '')
redis.call('HSET', hash, 'limit', set .. whole(now()) .. ' ' .. note)
return string.sub(before, 1, #set) == set and 0 or 1
