-- Reads which event stands for a digest.
--
-- KEYS: lock. ARGV: none.
-- Returns: {entry id, event id, milliseconds for which it stands}, or nil if none stands.
--
-- May race with: anything; it changes nothing.
local entry, id, rest = holder_of(KEYS[1])
return entry and {entry, id, rest} or nil
