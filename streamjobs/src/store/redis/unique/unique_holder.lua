-- Reads which event has the lock of a digest.
--
-- KEYS: lock. ARGV: none.
-- Returns: {entry id, event id, milliseconds for which it still has the lock}, or nil if no event
-- has it.
--
-- May race with: anything; it changes nothing.
local entry, id, rest = holder_of(KEYS[1])
return entry and {entry, id, rest} or nil
