-- Ends a lock by hand.
--
-- KEYS: lock. ARGV: the event whose lock it has to be, or nothing for any.
-- Returns: {entry id, event id, milliseconds for which it would have stood} of the event that had it, or nil
-- if no event had it, or another one than was named.
--
-- Before: the lock names an event, or no event stands.
-- After: the named event has no lock; without a name, no event has it.
-- May race with: publishers of the digest and the end of the job: a lock that is another event's by then is left
-- if an event is named. A repetition finds none.
local entry, id, rest = holder_of(KEYS[1])
if not entry or ARGV[1] ~= '' and ARGV[1] ~= id then return nil end
redis.call('DEL', KEYS[1])
return {entry, id, rest}
