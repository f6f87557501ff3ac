-- Since when a group exists in the first partition of its stream.
--
-- KEYS: stream, group hash. ARGV: group.
-- Returns: 0 if there is no such group and never was, 1 if it exists and this is not known, or 2; the server's
-- time in milliseconds, or 0 if its creator could not ask for it; of how many partitions its creator was told;
-- and how many were stored for the stream then.
--
-- Before, after: nothing is changed. The script that creates the group writes this, if the stream has several
-- partitions. Older versions write nothing. What cannot be read counts as not known: a missing right to the hash
-- does not prevent a start.
local made = redis.pcall('HGET', KEYS[2], 'made')
if type(made) ~= 'string' then made = nil end
local time, told, stored = string.match(made or '', '^(%d+) (%d+) (%d+)$')
if time and #time <= 15 and #told <= 4 and #stored <= 4 then return {2, time, told, stored} end
local existed = made or pending_of(KEYS[1], ARGV[1]) or redis.pcall('HEXISTS', KEYS[2], 'floor') ~= 0
return {existed and 1 or 0, 0, 0, 0}
