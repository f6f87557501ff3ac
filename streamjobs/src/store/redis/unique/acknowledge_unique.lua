-- Acknowledges an entry, and ends the lock of its event.
--
-- KEYS: stream or lane, lock. ARGV: group, source, entry id, event id.
-- Returns: 1 if the entry was pending, 0 if not.
--
-- Before: the entry is pending for any consumer, or not. The lock is this event's, another one's, or gone.
-- After: the entry is not pending, and deleted if it was in the lane. The lock is gone if it was this event's; another
-- event's lock stays.
-- May race with: claims and renewals of the entry, publishers of the digest. A repetition finds nothing
-- pending, and the lock of a later event.
--
-- The job is done, whichever process owns the entry by now. A server out of memory accepts every write here. A lock that
-- the user may not read or remove ends at its time.
local key, lock = KEYS[1], KEYS[2]
local group, source, id, event_id = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local acknowledged = redis.call('XACK', key, group, id)
if source == 'lane' then redis.call('XDEL', key, id) end
free_lock(lock, event_id)
return acknowledged
