-- Keeps the result of a job that is done, or a sign that it is a dead letter.
--
-- KEYS: result. ARGV: the result, or a text that begins with "!" as the sign; for how many milliseconds to keep
-- it.
-- Returns: 1 if it is kept, 0 if an earlier result is, -1 if the server is out of memory and a sign is kept
-- instead.
--
-- Before: the key has an earlier result, the sign of a dead letter, the sign that there was no memory, or nothing.
-- After: the key has the first result of the job, or else the last sign, and expires.
-- May race with: another run of the same job; the first one to come stays. A repetition changes nothing.
--
-- A server that is out of memory refuses results, which can be large. The sign is small and is stored all the
-- same: the script removes the key first, after which the server refuses none of its writes.
local key, result, keep = KEYS[1], ARGV[1], ARGV[2]
local present = redis.call('GET', key)
if present and string.sub(present, 1, 1) ~= '!' then return 0 end
local set = redis.pcall('SET', key, result, 'PX', keep)
if not set.err then return 1 end
if not string.find(tostring(set.err), 'OOM', 1, true) then return refusal_of(set) end
redis.call('DEL', key)
local is_sign = string.sub(result, 1, 1) == '!'
redis.call('SET', key, is_sign and result or '!memory', 'PX', keep)
return is_sign and 1 or -1
