-- Renews the leases of a consumer's entries.
--
-- KEYS: stream or lane, group hash, and dead letters and holds unless they cannot be reached now. ARGV: group, consumer, source ("stream" or "lane"), then an
-- id and a delivery count for each entry.
-- Returns: the server's clock, how often operators have moved entries, then for each entry 1 renewed, 0 owned by another attempt, -1 not
-- pending, -2 not pending and delivered again, or the id of a dead letter.
--
-- Before: each entry is pending for this attempt or another one, or not pending.
-- After: the idle time of this attempt's entries is zero, with the same delivery count. An entry
-- whose payload is trimmed is no longer pending (the claim silently removes it), and a dead letter
-- is stored for it. If its job has a place in a limit, `runs:` and the place in the group's hash has the time and
-- the consumer: each renewal of the attempt renews that, and a sweep takes it for the job while it is younger than the
-- consumer's lease.
-- May race with: claims, acknowledgements and renewals of any process. XCLAIM alone would take an
-- entry back from its new owner, so owner and count are compared first, in this script.
--
-- The consumer's pending entries are read as one range and claimed in one command: one entry at a
-- time costs the server several times as much. An entry that is not in the range is checked by itself. If the key of
-- the dead letters is missing or of another type, leases are still renewed: an entry whose payload is trimmed is then
-- left as it is, and counts as renewed. No header flags: renewals have to work while the server is out of memory.
local key, hash, dead, holds = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, me, source = ARGV[1], ARGV[2], ARGV[3]
local can_store = dead and storable(dead)
local moved = redis.pcall('HGET', hash, 'moved')
local clock = now()
local answers = {clock, type(moved) == 'string' and moved or '0'}

-- Notes that the attempt at an entry which is not pending any more runs on. What fails here fails no renewal.
local function note_run(place)
  redis.pcall('HDEL', hash, '')
  redis.pcall('HSET', hash, 'runs:' .. place, whole(clock) .. ' ' .. me)
end
local prefix = source == 'lane' and 'l:' or 's:'

local counts = {}
if #ARGV > 3 then
  -- Entries of this consumer that another call renews may lie in between.
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
  if state < 0 then
    local noted = redis.pcall('HGET', hash, 'runs:' .. prefix .. id)
    if type(noted) == 'string' and string.match(noted, ' (.+)$') == me then note_run(prefix .. id) end
  end
  answers[#answers + 1] = state
end
if #claims == 0 then return answers end
claims[#claims + 1] = 'JUSTID'
local renewed = redis.call('XCLAIM', key, group, me, 0, unpack(claims))
claims[#claims] = nil
if #renewed == #claims then return answers end

-- The claim left out entries whose payload is trimmed.
local gone = {}
for _, id in ipairs(claims) do gone[id] = true end
for _, id in ipairs(renewed) do gone[id] = nil end
for i = 4, #ARGV, 2 do
  local id, count = ARGV[i], ARGV[i + 1]
  if gone[id] then
    answers[i / 2 + 1] = store_trimmed(dead, source, id, count, me)
    if holds and redis.pcall('HEXISTS', holds, prefix .. id) == 1 then note_run(prefix .. id) end
  end
end
return answers
