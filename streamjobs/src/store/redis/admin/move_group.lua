-- Lets a group go on after another entry.
--
-- KEYS: stream, group hash. ARGV: group, id or "$" for the end, "keep" or "lose".
-- Answers: 1 moved, or 0 because entries would never be delivered.
--
-- Before: the group is there, else the script is refused.
-- After: the next read begins after the id. What is pending stays pending. The durable floor stands
-- before both, so a group that is made again misses nothing.
-- May race with: reads, which begin at the old or at the new place.
local stream, hash = KEYS[1], KEYS[2]
local group, to, lose = ARGV[1], ARGV[2], ARGV[3] == 'lose'
local summary = redis.call('XPENDING', stream, group)
local info = fields_of(redis.call('XINFO', 'STREAM', stream))
local cursor
for _, row in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local fields = fields_of(row)
  if fields['name'] == group then cursor = fields['last-delivered-id'] end
end
if to == '$' then to = info['last-generated-id'] end
if not lose and precedes(cursor, to) then
  local skipped = redis.call('XRANGE', stream, following(cursor), to, 'COUNT', 1)[1]
  if skipped then return 0 end
end
-- The server can only count the lag, and a beat what was trimmed unread, where it is known how many
-- entries stand before the cursor. What is gone by now is not lost to a group that is sent back.
local first = info['first-entry']
if to == info['last-generated-id'] then
  redis.call('XGROUP', 'SETID', stream, group, to, 'ENTRIESREAD', info['entries-added'])
elseif not first or precedes(to, first[1]) then
  redis.call('XGROUP', 'SETID', stream, group, to, 'ENTRIESREAD',
    info['entries-added'] - info['length'])
else
  redis.call('XGROUP', 'SETID', stream, group, to)
end
local floor = to
if summary[1] > 0 and precedes(preceding(summary[2]), floor) then floor = preceding(summary[2]) end
redis.call('HSET', hash, 'floor', floor)
return 1
