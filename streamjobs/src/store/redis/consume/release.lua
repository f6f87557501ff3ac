-- Hands entries back as if they had not been delivered.
--
-- KEYS: stream or lane, dead letters, group hash. ARGV: group, consumer, source, idle time in
-- milliseconds, then an id and a delivery count for each entry.
-- Answers: for each entry 1 handed back, 0 held by another attempt, -1 held by nobody, or the id of
-- a dead letter.
--
-- Before: each entry is pending for this attempt, for another one, or for nobody.
-- After: the entries of this attempt are pending for it with one delivery less and with an idle
-- time that every sweep takes for abandoned; the count of releases is one higher, which tells other
-- processes to look. One whose payload is gone is a dead letter, or left alone, as in a renewal.
-- May race with: sweeps, acknowledgements and renewals of any process. The lowered count makes the
-- same pair of consumer and count possible again, so only a process that ends may release.
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
