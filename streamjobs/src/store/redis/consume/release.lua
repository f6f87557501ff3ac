-- Releases entries, as if they had not been delivered.
--
-- KEYS: stream or lane, dead letters, group hash. ARGV: group, consumer, source, then an id and a
-- delivery count for each entry.
-- Returns: for each entry 1 released, 0 owned by another attempt, -1 not pending, -2 not pending
-- and delivered again, or the id of a dead letter.
--
-- Before: each entry is pending for this attempt or another one, or not pending.
-- After: this attempt's entries are pending for the owner of released entries, with one delivery
-- less, so that any reaper claims them. The count of releases is one higher, which makes other
-- processes check for idle entries. An entry whose payload is trimmed becomes a dead letter or is
-- left as it is, as in a renewal.
-- May race with: claims, acknowledgements and renewals of any process.
--
-- Entries are not released by setting an old idle time: newer servers keep the pending list in the
-- order of delivery times, and to put an older one in its place they walk through the list, for
-- seconds if it is long.
local key, dead, hash = KEYS[1], KEYS[2], KEYS[3]
local group, me, source = ARGV[1], ARGV[2], ARGV[3]
local can_store = storable(dead)
redis.call('HLEN', hash)
local answers, released = {}, false
for i = 4, #ARGV, 2 do
  local id, count = ARGV[i], ARGV[i + 1]
  local state = held(key, group, me, id, count)
  if state == 1 and claimable(key, can_store, id) then
    local before = whole(math.max(tonumber(count) - 1, 0))
    local claimed = redis.call('XCLAIM', key, group, RELEASED, 0, id, 'RETRYCOUNT', before, 'JUSTID')
    if #claimed == 0 then state = store_trimmed(dead, source, id, count, me) else released = true end
  end
  answers[#answers + 1] = state
end
if released then redis.call('HINCRBY', hash, 'released', 1) end
return answers
