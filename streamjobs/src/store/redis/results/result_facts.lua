-- Reads what is kept of the results of an event's jobs.
--
-- KEYS: the result of each group. No ARGV.
-- Returns: for each key the length of the result and for how many more milliseconds it is kept, or nil if none
-- is kept. The length is -1 for a sign that there was no memory. The sign of a dead letter is not a result.
--
-- May race with: anything; it changes nothing. A key of another type, or one that never expires, is not a
-- result.
local facts = {}
for i, key in ipairs(KEYS) do
  local kept = redis.pcall('GET', key)
  local rest = type(kept) == 'string' and redis.call('PTTL', key) or -1
  local length = type(kept) == 'string' and string.sub(kept, 1, 1) ~= '!' and #kept or -1
  local is_dead = type(kept) == 'string' and string.sub(kept, 1, 6) == '!dead '
  facts[i] = rest > 0 and not is_dead and {length, rest} or false
end
return facts
