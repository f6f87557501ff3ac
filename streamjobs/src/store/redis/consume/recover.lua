-- Delivers entries again that were delivered to this consumer in an answer that it never got.
--
-- KEYS: stream or lane, dead letters. ARGV: group, consumer, source, then an id and a delivery
-- count for each entry.
-- Returns: the entries as id, fields and delivery count, packed.
--
-- Before: each entry is pending for this attempt or another one, or not pending.
-- After: this attempt's entries are in the answer; their idle time is zero, their delivery count
-- the same. An entry whose payload is trimmed becomes a dead letter or is left as it is, as in a
-- renewal.
-- May race with: claims and renewals of any process, like a renewal.
--
-- Reading the consumer's own history instead would count a delivery, and that count would reach
-- neither the replicas nor the append-only file.
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
return cmsgpack.pack(entries)
