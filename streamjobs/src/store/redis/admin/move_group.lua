-- Sets the entry after which a group continues.
--
-- KEYS: stream, group hash. ARGV: group, id or "$" for the end, "keep" or "lose", "apply" or "check".
-- An id after the end of the stream is the end: entries that do not exist yet are not skipped.
-- Returns: 1 moved, or 0 because entries would never be delivered. With "check" nothing is changed.
--
-- Before: the group exists, else the script is refused.
-- After: the next read begins after the id. Pending entries stay pending. The durable floor is not
-- after the id or any pending entry, so a group that is recreated misses nothing.
-- May race with: reads, which begin at the old or at the new position.
local stream, hash = KEYS[1], KEYS[2]
local group, to, lose = ARGV[1], ARGV[2], ARGV[3] == 'lose'
local summary = redis.call('XPENDING', stream, group)
local info = fields_of(redis.call('XINFO', 'STREAM', stream))
local cursor = group_of(stream, group)['last-delivered-id']
if to == '$' or precedes(info['last-generated-id'], to) then to = info['last-generated-id'] end
if not lose and precedes(cursor, to) then
  local skipped = redis.call('XRANGE', stream, following(cursor), to, 'COUNT', 1)[1]
  if skipped then return 0 end
end
if ARGV[4] == 'check' then return 1 end
-- The number of entries before the cursor must be known for the server to count the lag, and for the heartbeat to count
-- the entries that were trimmed unread. For a group that is moved back, entries that are trimmed by now do not count as
-- lost.
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
