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
-- What this consumer has is looked at in one range, and claimed in one command: an entry by itself
-- costs the server several times as much. One that the range does not show, for whatever reason, is
-- looked at by itself.
-- Leases outlive a key of the dead letters that is of another type: an entry whose payload is gone is
-- then left as it is, and counts as renewed. No header flags: it has to work while the server is out
-- of memory.
local key, dead = KEYS[1], KEYS[2]
local group, me, source = ARGV[1], ARGV[2], ARGV[3]
local can_store = storable(dead)
local answers = {now()}

local counts = {}
if #ARGV > 3 then
  -- Others of this consumer may stand between them, which are renewed at another time.
  local rows_max = #ARGV
  for _, row in ipairs(redis.call('XPENDING', key, group, ARGV[4], ARGV[#ARGV - 1], rows_max, me)) do
    counts[row[1]] = row[4]
  end
end

local claims = {}
for i = 4, #ARGV, 2 do
  local id, count = ARGV[i], ARGV[i + 1]
  local state = counts[id] == tonumber(count) and 1 or held(key, group, me, id, count)
  if state == 1 and claimable(key, can_store, id) then claims[#claims + 1] = id end
  answers[#answers + 1] = state
end
if #claims == 0 then return answers end
claims[#claims + 1] = 'JUSTID'
local renewed = redis.call('XCLAIM', key, group, me, 0, unpack(claims))
claims[#claims] = nil
if #renewed == #claims then return answers end

-- Some are left out: their payload is gone.
local gone = {}
for _, id in ipairs(claims) do gone[id] = true end
for _, id in ipairs(renewed) do gone[id] = nil end
for i = 4, #ARGV, 2 do
  local id, count = ARGV[i], ARGV[i + 1]
  if gone[id] then answers[i / 2] = store_trimmed(dead, source, id, count, me) end
end
return answers
