-- Removes an event that waits.
--
-- KEYS: waiting events, their records. ARGV: event id.
-- Returns: 1 if it waited, 0 if not.
--
-- Before: an event of this id waits or not.
-- After: none does. If one did, it never becomes an entry.
-- May race with: calls that enter events; the first to run gets the event. A repetition finds
-- nothing.
--
-- A record without a member, or a member without a record, counts as a waiting event.
local removed = redis.call('ZREM', KEYS[1], ARGV[1]) + redis.call('HDEL', KEYS[2], ARGV[1])
return removed > 0 and 1 or 0
