-- Reads entries that a limit admits.
--
-- KEYS: stream, lane, dead letters, holds, busy, lines, line records, turns, group hash. ARGV: group, consumer, source
-- ("stream" or "lane"), entries at most, what the limit counts together ("key" or "group"), the limit, and again what
-- it counts if an operator can change it, or else nothing.
-- Returns: "drained" if nothing is left to read, "more" if something may be, or "full" if something is left
-- that the limit does not admit now; how many jobs were put into lines; and the admitted entries.
--
-- Before: the group exists on stream and lane.
-- After: each returned entry is pending for the consumer, and has a hold unless it has no key. An entry
-- whose key is at its limit, or has a line, is at the end of its line and not pending. A job that comes
-- back from the retry set with its hold keeps it. Entries beyond what is read are unchanged.
-- May race with: takes and ends of all processes. Reading and deciding are one step: two processes that
-- read one key's entries and decided later could decide in the other order.
--
-- What decides about a page of entries is read at once, and what follows from it is stored at once. A record
-- is stored before its entry is acknowledged. A job with too many fields to be carried cannot wait, and
-- is admitted beyond the limit. Where lines have too many jobs or bytes, the stream is not read further, so what waits
-- is bounded. An answer that is lost loses nothing: its entries are pending, with their holds, and
-- are recovered.
local stream, lane = KEYS[1], KEYS[2]
local keys = {lane = lane, holds = KEYS[4], busy = KEYS[5], lines = KEYS[6], records = KEYS[7], turns = KEYS[8]}
local group, me, source, count = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local scope, limit = ARGV[5], limit_in_force(KEYS[9], ARGV[7], tonumber(ARGV[6]))
local LOOKED_MAX, BYTES_MAX = 200, 1024 * 1024
local key = source == 'lane' and lane or stream
local prefix = source == 'lane' and 'l:' or 's:'
local waiting = check_types(keys)
local parking = new_parking()

-- What is known of a page of entries: for each where it is, its key, whether it has a hold and where it was before its
-- retry; for each such earlier place, the key of its hold; for each key, how many holds it has, and whether it has a
-- line.
local function known_of(entries)
  local known = {places = {}, keys = {}, before = {}, kept = {}, lined = {}, bytes = 0}
  local places, names, seen, befores = known.places, {}, {}, {}
  for i, entry in ipairs(entries) do
    local counted, before, bytes = look_at(scope, entry[2])
    known.bytes, places[i], known.keys[i] = known.bytes + bytes, prefix .. entry[1], counted or false
    if before and source == 'lane' then befores[#befores + 1], known.before[i] = before, before end
    if counted and not seen[counted] then
      names[#names + 1], seen[counted] = counted, true
      if waiting > 0 or parking.jobs > 0 then
        known.lined[counted] = parking.added[counted] or redis.call('ZSCORE', keys.turns, counted)
      end
    end
  end
  for i, value in ipairs(values_of(keys.holds, befores)) do known.kept[befores[i]] = value end
  known.held, known.counts = values_of(keys.holds, places), counts_of(keys.busy, names)
  return known
end

-- Decides about a page in the order of its entries: those that are admitted go to `admitted`.
local function decide(entries, known, admitted)
  local held, moved, kept, counts = {}, {}, known.kept, known.counts
  for i, entry in ipairs(entries) do
    local counted, before, may_run = known.keys[i], known.before[i], true
    local has = counted and counts[counted]
    local first = before and kept[before]
    if known.held[i] then
      -- The entry was read before the group was lost.
    elseif first then
      held[#held + 1], held[#held + 2] = known.places[i], first
      moved[#moved + 1], kept[before] = before, nil
    elseif counted and has < limit and not known.lined[counted] then
      held[#held + 1], held[#held + 2] = known.places[i], counted
      counts[counted] = has + 1
    elseif counted and #entry[2] <= LINE_WORDS_MAX then
      park(parking, keys, prefix, entry[1], entry[2], counted)
      known.lined[counted], may_run = true, false
    end
    if may_run then
      entry[3] = '1'
      admitted[#admitted + 1] = entry
    end
  end
  if #held > 0 then redis.call('HSET', keys.holds, unpack(held)) end
  if #moved > 0 then redis.call('HDEL', keys.holds, unpack(moved)) end
  store_counts(keys.busy, counts)
end

-- How many entries still fit. Where the limit counts all jobs, what it does not admit stays in the stream.
local function room()
  if source == 'lane' then return count end
  if scope == 'group' then
    if redis.call('ZSCORE', keys.turns, ALL) then return 0 end
    return math.min(count, limit - (tonumber(redis.call('HGET', keys.busy, ALL) or '') or 0))
  end
  return lines_are_full(keys, waiting) and 0 or count
end

local want, admitted, looked, bytes, left = room(), {}, 0, 0, 'more'
while #admitted < want and looked < LOOKED_MAX and bytes < BYTES_MAX do
  local asked = math.min(want - #admitted, LOOKED_MAX - looked)
  local reply = redis.call('XREADGROUP', 'GROUP', group, me, 'COUNT', asked, 'STREAMS', key, '>')
  local entries = reply and reply[1] and reply[1][2] or {}
  if #entries > 0 then
    local known = known_of(entries)
    decide(entries, known, admitted)
    bytes = bytes + known.bytes
  end
  looked = looked + #entries
  if #entries < asked then
    left = 'drained'
    break
  end
end
store_parking(parking, keys, stream, group)
if want <= 0 then
  -- If the group is lost, this command is refused, which tells the caller.
  redis.call('XPENDING', key, group)
  left = 'full'
elseif want < count and #admitted == want then
  left = 'full'
end
return {left, parking.jobs, cmsgpack.pack(admitted)}
