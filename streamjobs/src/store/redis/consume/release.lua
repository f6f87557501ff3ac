-- Releases entries, as if they had not been delivered.
--
-- KEYS: stream or lane, dead letters, group hash. ARGV: group, consumer, source, idle time in
-- milliseconds, then an id and a delivery count for each entry.
-- Returns: for each entry 1 released, 0 owned by another attempt, -1 not pending, or the id of a
-- dead letter.
--
-- Before: each entry is pending for this attempt or another one, or not pending.
-- After: this attempt's entries are still pending for it, with one delivery less and an idle time
-- past every lease, so that any reaper claims them. The count of releases is one higher, on which
-- other processes check for idle entries. An entry whose payload is trimmed is a dead letter, or
-- left as it is, as in a renewal.
-- May race with: claims, acknowledgements and renewals of any process. With the lowered count, the
-- same pair of consumer and count can occur again, so only a process that stops may release.
local key, dead, hash = KEYS[1], KEYS[2], KEYS[3]
local group, me, source, idle = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local can_store = storable(dead)
redis.call('HLEN', hash)
local answers, released = {}, false
for i = 5, #ARGV, 2 do
  local id, count = ARGV[i], ARGV[i + 1]
  local state = held(key, group, me, id, count)
  if state == 1 and claimable(key, can_store, id) then
    local before = whole(math.max(tonumber(count) - 1, 0))
    local claimed = redis.call('XCLAIM', key, group, me, 0, id, 'IDLE', idle,
      'RETRYCOUNT', before, 'JUSTID')
    if #claimed == 0 then state = store_trimmed(dead, source, id, count, me) else released = true end
  end
  answers[#answers + 1] = state
end
if released then redis.call('HINCRBY', hash, 'released', 1) end
return answers
