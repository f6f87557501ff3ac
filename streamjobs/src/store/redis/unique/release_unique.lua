-- Ends a lock by hand.
--
-- KEYS: lock. ARGV: the event whose lock it has to be, or nothing for any.
-- Returns: {entry id, event id, milliseconds for which it would still have had it} of the event that had the lock, or
-- nil if no event had it, or if another event than the named one had it.
--
-- Before: the lock names an event, or there is no lock.
-- After: the named event has no lock; without a name, no event has it.
-- May race with: publishers of the digest and the end of the job: if an event is named, a lock that belongs to
-- another event by then stays. A repetition finds none.
local entry, id, rest = holder_of(KEYS[1])
if not entry or ARGV[1] ~= '' and ARGV[1] ~= id then return nil end
redis.call('DEL', KEYS[1])
return {entry, id, rest}
