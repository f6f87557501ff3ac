-- Pauses a group or resumes it, in every process.
--
-- KEYS: group hash. ARGV: 1 to pause, 0 to resume.
-- Returns: 1 changed, 0 it was in that state already.
--
-- Before: the group may be paused or not, and exist or not.
-- After: if the group is paused, the field `paused` has the time of the pause by the server's clock, which a second
-- pause does not change. If it is resumed, the field is gone, and `resumed` has the time at which the pause ended.
-- Nothing else has changed: entries in flight stay in flight.
-- May race with: promotions, which report to every process what they find here.
if ARGV[1] == '1' then return redis.call('HSETNX', KEYS[1], 'paused', whole(now())) end
local resumed = redis.call('HDEL', KEYS[1], 'paused')
if resumed == 1 then redis.call('HSET', KEYS[1], 'resumed', whole(now())) end
return resumed
