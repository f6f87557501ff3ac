-- Reads the state of a stream.
--
-- KEYS: stream.
-- Returns: nil if it does not exist, else length, first id or nil, last id or nil, last generated
-- id, entries ever added, bytes or nil, number of groups.
--
-- May race with: anything; it changes nothing. This is a script so that the payloads of the first
-- and the last entry stay on the server. The server still copies them, so the script does not run
-- regularly.
local stream = KEYS[1]
local reply = redis.pcall('XINFO', 'STREAM', stream)
if reply.err and string.find(reply.err, 'no such key', 1, true) then return false end
if reply.err then return reply end
local info = fields_of(reply)
local function id_of(entry) return entry and entry[1] or false end
-- The user may lack the right to this command.
local bytes = redis.pcall('MEMORY', 'USAGE', stream)
return {info['length'], id_of(info['first-entry']), id_of(info['last-entry']),
  info['last-generated-id'], info['entries-added'], type(bytes) == 'number' and bytes or false,
  info['groups']}
