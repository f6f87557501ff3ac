-- Removes an event that waits.
--
-- KEYS: waiting events, their records. ARGV: event id.
-- Returns: 1 if it waited, 0 if not.
--
-- Before: an event of this id waits or not.
-- After: none does. If one did, no entry comes of it any more.
-- May race with: enterers, of which the first to run has the event. A repetition finds nothing.
--
-- A record without a member, or the reverse, counts as an event that waits.
local removed = redis.call('ZREM', KEYS[1], ARGV[1]) + redis.call('HDEL', KEYS[2], ARGV[1])
return removed > 0 and 1 or 0
