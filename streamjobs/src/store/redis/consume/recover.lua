-- Delivers entries again that were delivered to this consumer in an answer it never read.
--
-- KEYS: stream or lane, dead letters. ARGV: group, consumer, source, then an id and a delivery
-- count for each entry.
-- Answers: the entries as id, fields and delivery count.
--
-- Before: each entry is pending for this attempt, for another one, or for nobody.
-- After: the entries of this attempt are in the answer, idle for no time, with the same delivery
-- count. One whose payload is gone is a dead letter, or left alone, as in a renewal.
-- May race with: sweeps and renewals of any process, as a renewal.
--
-- Reading the own history would count a delivery that neither replicas nor the append-only file
-- get to know.
local key, dead = KEYS[1], KEYS[2]
local group, me, source = ARGV[1], ARGV[2], ARGV[3]
local can_store = storable(dead)
local entries = {}
for i = 4, #ARGV, 2 do
  local id, count = ARGV[i], ARGV[i + 1]
  if held(key, group, me, id, count) == 1 and claimable(key, can_store, id) then
    local claimed = redis.call('XCLAIM', key, group, me, 0, id, 'RETRYCOUNT', count)
    if claimed[1] then
      entries[#entries + 1] = {id, claimed[1][2], count}
    else
      store_trimmed(dead, source, id, count, me)
    end
  end
end
return entries
