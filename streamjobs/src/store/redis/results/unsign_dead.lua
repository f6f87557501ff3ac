-- Removes the sign that a job is a dead letter.
--
-- KEYS: result. No ARGV.
-- Returns: 1 if there was one, else 0.
--
-- Before: the key has a result, a sign, or nothing.
-- After: it has no sign of a dead letter. A result stays, and so does a key of another type.
-- May race with: a run that ends, and sets a result or a new sign.
local present = redis.pcall('GET', KEYS[1])
if type(present) ~= 'string' or string.sub(present, 1, 6) ~= '!dead ' then return 0 end
return redis.call('DEL', KEYS[1])
