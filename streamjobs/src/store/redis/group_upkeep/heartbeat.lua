-- Records that a consumer lives, how far the group is done, and what it will never get.
--
-- KEYS: stream, group hash. ARGV: group, consumer, what the consumer says about itself.
-- Answers: the floor, and how many entries were trimmed before they were delivered, each told once.
--
-- Before: the group is there, else the script is refused.
-- After: the consumer's beat is the server's clock. The floor is the id before the lowest pending
-- one, or else the last delivered one: a group that is made again there misses nothing.
-- May race with: anything. It changes nothing but the hash, and the group's own count of the entries
-- that it has read.
--
-- All that was ever added and is gone stood before the first entry. The cursor stands there as well,
-- or behind it: of what is gone, as many as are not counted as read have passed the group by. The
-- count is then put right, which tells each loss once and also mends the lag that older servers keep
-- for ever after such a trim. Entries that were deleted one by one in front of the cursor are
-- included. A server that guesses the count anew when the group reads on hides what was not told by
-- then; whoever begins to read beats before.
local stream, hash = KEYS[1], KEYS[2]
local name, consumer, about = ARGV[1], ARGV[2], ARGV[3]
local summary = redis.call('XPENDING', stream, name)
local group
for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local fields = fields_of(info)
  if fields['name'] == name then group = fields end
end
local cursor, read = group['last-delivered-id'], group['entries-read']

local info = fields_of(redis.call('XINFO', 'STREAM', stream))
local gone = info['entries-added'] - info['length']
local lost = 0
if read and gone > read then
  -- Where the count may not be put right, nothing is told, because it would be told again.
  local moved = redis.pcall('XGROUP', 'SETID', stream, name, cursor, 'ENTRIESREAD', gone)
  if not moved.err then
    lost = gone - read
    redis.call('HINCRBY', hash, 'trimmed-unread', lost)
  end
end

local floor = summary[1] > 0 and preceding(summary[2]) or cursor
redis.call('HSET', hash, 'floor', floor, 'beat:' .. consumer, whole(now()),
  'about:' .. consumer, about)
return {floor, lost}
