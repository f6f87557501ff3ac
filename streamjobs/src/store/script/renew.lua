-- Renews what a consumer holds.
--
-- KEYS: stream or lane, dead letters. ARGV: group, consumer, source ("stream" or "lane"), then an
-- id and a delivery count for each entry.
-- Answers: the server's clock, then for each entry 1 renewed, 0 held by another attempt, -1 held by
-- nobody, or the id of a dead letter.
--
-- Before: each entry is pending for this attempt, for another one, or for nobody.
-- After: the entries of this attempt have been idle for no time, with the same delivery count. One
-- whose payload is gone is pending no more (the claim removes its record without saying so), and a
-- dead letter tells of it.
-- May race with: sweeps, acknowledgements and renewals of any process. The claim itself would take
-- an entry back from its new owner, therefore owner and count are compared first, in this script.
--
-- Leases outlive a key of the dead letters that is of another type: an entry whose payload is gone is
-- then left as it is, and counts as renewed. No header flags: it has to work while the server is out
-- of memory.
local key, dead = KEYS[1], KEYS[2]
local group, me, source = ARGV[1], ARGV[2], ARGV[3]
local can_store = storable(dead)
local answers = {now()}
for i = 4, #ARGV, 2 do
  local id, count = ARGV[i], ARGV[i + 1]
  local state = held(key, group, me, id, count)
  if state == 1 and claimable(key, can_store, id)
    and #redis.call('XCLAIM', key, group, me, 0, id, 'JUSTID') == 0
  then
    state = bury_trimmed(dead, source, id, count, me)
  end
  answers[#answers + 1] = state
end
return answers
