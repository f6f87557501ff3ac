-- Counts the entries after an id, up to a limit.
--
-- KEYS: stream. ARGV: id, entries at most, bytes at most.
-- Returns: how many were counted, and 1 if these are all.
--
-- May race with: anything; it changes nothing. The server can only count by reading entries, and
-- all other clients wait meanwhile. So large entries end the count early.
local stream, after, most, bytes_most = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local PAGE = 10
local entries, bytes = 0, 0
local from = following(after)
if from == after then return {0, 1} end
while entries < most and bytes < bytes_most do
  local page = redis.call('XRANGE', stream, from, '+', 'COUNT', PAGE)
  for _, entry in ipairs(page) do
    entries = entries + 1
    for _, part in ipairs(entry[2]) do bytes = bytes + #part end
  end
  if #page < PAGE then return {entries, 1} end
  from = following(page[#page][1])
end
return {entries, 0}
