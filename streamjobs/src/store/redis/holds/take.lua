-- Reads entries that a limit admits.
--
-- KEYS: stream, lane, holds, busy, lines, line records, turns. ARGV: group, consumer, source ("stream" or
-- "lane"), entries at most, what the limit counts together ("key" or "group"), and the limit.
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
-- A record is stored before its entry is acknowledged. A job with too many fields to be carried cannot wait, and
-- is admitted beyond the limit. Where lines have too many jobs or bytes, the stream is not read further, so what waits
-- is bounded. An answer that is lost loses nothing: its entries are pending, with their holds, and
-- are recovered.
local stream, lane, holds, busy, lines, records, turns = unpack(KEYS)
local group, me, source, count = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local scope, limit = ARGV[5], tonumber(ARGV[6])
local LOOKED_MAX, BYTES_MAX, FIELDS_MAX = 200, 1024 * 1024, 1000
local PARKED_MAX, PARKED_BYTES_MAX = 10000, 64 * 1024 * 1024
check_types(holds, busy, lines, records, turns)
local key = source == 'lane' and lane or stream
local prefix = source == 'lane' and 'l:' or 's:'
local parked, number, parked_bytes = 0, nil, 0

local function bytes_of(fields)
  local bytes = 0
  for _, word in ipairs(fields) do bytes = bytes + #word end
  return bytes
end

-- Puts a job at the end of its key's line. It keeps the id of the entry that was published.
local function park(id, fields, counted)
  local job = {}
  for i = 1, #fields, 2 do
    if fields[i] ~= 'sj-held' then job[#job + 1], job[#job + 2] = fields[i], fields[i + 1] end
  end
  if not value_of(job, 'sj-origin') then job[#job + 1], job[#job + 2] = 'sj-origin', id end
  number = (number or tonumber(redis.call('HGET', records, '#') or '') or 0) + 1
  local member, record = line_prefix(counted) .. string.format('%020.0f', number), cmsgpack.pack(job)
  redis.call('HSET', records, member, record, '#', whole(number))
  redis.call('ZADD', lines, 0, member)
  redis.call('ZINCRBY', turns, 1, counted)
  redis.call('XACK', key, group, id)
  if source == 'lane' then redis.call('XDEL', key, id) end
  parked, parked_bytes = parked + 1, parked_bytes + #record
end

-- Whether an entry is admitted; otherwise it is in a line now.
local function admit(id, fields)
  local place = prefix .. id
  if redis.call('HEXISTS', holds, place) == 1 then return true end
  local before = source == 'lane' and value_of(fields, 'sj-held')
  local kept = before and redis.call('HGET', holds, before)
  if kept then
    redis.call('HSET', holds, place, kept)
    redis.call('HDEL', holds, before)
    return true
  end
  local counted = counted_key(scope, fields)
  if not counted then return true end
  local has = tonumber(redis.call('HGET', busy, counted) or '') or 0
  if has >= limit or redis.call('ZSCORE', turns, counted) then
    if #fields > 2 * FIELDS_MAX then return true end
    park(id, fields, counted)
    return false
  end
  redis.call('HSET', holds, place, counted)
  change_busy(busy, counted, 1)
  return true
end

-- What still fits. Where the limit counts all jobs, what it does not admit stays in the stream.
local function room()
  if source == 'lane' then return count end
  if scope == 'group' then
    if redis.call('ZSCORE', turns, ALL) then return 0 end
    return math.min(count, limit - (tonumber(redis.call('HGET', busy, ALL) or '') or 0))
  end
  local bytes = tonumber(redis.call('HGET', records, '#bytes') or '') or 0
  local is_full = redis.call('ZCARD', lines) >= PARKED_MAX or bytes >= PARKED_BYTES_MAX
  return is_full and 0 or count
end

local want, admitted, looked, bytes, left = room(), {}, 0, 0, 'more'
while #admitted < want and looked < LOOKED_MAX and bytes < BYTES_MAX do
  local asked = math.min(want - #admitted, LOOKED_MAX - looked)
  local reply = redis.call('XREADGROUP', 'GROUP', group, me, 'COUNT', asked, 'STREAMS', key, '>')
  local entries = reply and reply[1] and reply[1][2] or {}
  for _, entry in ipairs(entries) do
    bytes = bytes + bytes_of(entry[2])
    if admit(entry[1], entry[2]) then admitted[#admitted + 1] = {entry[1], entry[2], '1'} end
  end
  looked = looked + #entries
  if #entries < asked then
    left = 'drained'
    break
  end
end
if want <= 0 then
  -- A group that is lost is said to be.
  redis.call('XPENDING', key, group)
  left = 'full'
elseif want < count and #admitted == want then
  left = 'full'
end
if parked > 0 then redis.call('HINCRBY', records, '#bytes', parked_bytes) end
return {left, parked, cmsgpack.pack(admitted)}
