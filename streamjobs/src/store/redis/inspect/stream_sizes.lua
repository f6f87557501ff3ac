-- Reads how large a stream is.
--
-- KEYS: stream.
-- Returns: nil if it does not exist, else length, entries ever added, bytes or nil, number of groups.
--
-- May race with: anything; it changes nothing. Payloads are copied only if no group's counts tell how
-- many entries were added.
local stream = KEYS[1]
local groups = redis.pcall('XINFO', 'GROUPS', stream)
if groups.err and string.find(groups.err, 'no such key', 1, true) then return false end
if groups.err then return groups end
local length = redis.call('XLEN', stream)
-- The user may lack the right to this command.
local bytes = redis.pcall('MEMORY', 'USAGE', stream)
return {length, added_to(stream, length, groups), type(bytes) == 'number' and bytes or false, #groups}
