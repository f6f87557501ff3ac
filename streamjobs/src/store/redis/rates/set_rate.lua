-- Sets a rate of a group that replaces the code's, or removes it.
--
-- KEYS: group hash. ARGV: the rate, "off" for no limit, or nothing for the code's rate.
-- Returns: 1 if anything changed, or else 0.
--
-- Before: the group may have a rate or not, and exist or not.
-- After: `rate` is as given, or gone. `limited` is gone, so that the group no longer waits because of a limit
-- of the service that its jobs call.
-- May race with: reservations and promotions, which report to every process what they find here.
local hash, rate = KEYS[1], ARGV[1]
local waited = redis.call('HDEL', hash, 'limited')
if rate == '' then return math.max(redis.call('HDEL', hash, 'rate'), waited) end
local before = redis.call('HGET', hash, 'rate')
redis.call('HSET', hash, 'rate', rate)
return (before ~= rate or waited == 1) and 1 or 0
