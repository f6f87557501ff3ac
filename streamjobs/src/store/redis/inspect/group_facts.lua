-- Reads the state of a group, in one step.
--
-- KEYS: stream, lane, retry set, retry records, dead letters, group hash, lines and turns of the group's
-- limit, and its rate. ARGV: group, and for how
-- many milliseconds a dead letter counts as new.
-- Returns: version of the server as a number, clock, length of the stream, the ends of the stream or
-- nil, the group's cursor, entries read or nil, lag or nil, first id behind the cursor or nil,
-- pending, pending in the lane, waiting in the lane, idle time of the oldest pending entry that is
-- not released or nil, waiting for retry, dead letters or nil, time of the pause or nil,
-- time at which the last pause ended or nil, entries counted as trimmed before they were delivered,
-- a list of at most 20 event types that were met without a handler within a minute and that no
-- live process declares, the number of new dead letters, the error of the last one counted or nil,
-- the error of a failed job that waits for retry or nil, how many of the pending ones are released, how
-- many jobs are in lines or nil, the key with the longest line and how many it has, or nil; and the rate: the one
-- of the code or nothing, the one that an operator has set or nothing, microseconds until the next start, how many
-- microseconds into the future granted starts reach, and for how many more milliseconds the group waits because of
-- a limit of the service that its jobs call; and the limit that an operator has set or nothing.
--
-- Before: the group exists, else the script is refused.
-- May race with: anything; it changes nothing.
--
-- The ends are the first id or nil, the last generated id, and the entries ever added. Reading them
-- copies the first and the last payload, so they are read only if the other figures do not tell where the cursor is: if
-- all entries may be after it, if there is no usable lag, if the stream is empty, or if the cursor is beyond the clock.
-- The first id after the cursor cannot be read without its payload.
--
-- The number of entries read is nil if it is not known to be right: if the server does not keep the count when a
-- replica takes over, and the data set is not the one of the last heartbeat. Without a heartbeat, as in groups of other
-- software, the server's count is taken as it is.
--
-- New dead letters and retries are read with their payloads: up to 64 kB of letters, and as much of the five jobs
-- that are due first and the five that are due last. At most ten entries are read beyond that, because the size of
-- an entry is known only after it is read. At most 100 dead letters are counted.
local stream, lane, retry, records = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local dead, hash = KEYS[5], KEYS[6]
local name, is_new_for = ARGV[1], tonumber(ARGV[2])
local BYTES_MAX, COUNTED_MAX, PAGE, ERROR_MAX = 65536, 100, 10, 300

local summary = redis.call('XPENDING', stream, name)
local group = group_of(stream, name)
local length, clock = redis.call('XLEN', stream), now()
local cursor, lag = group['last-delivered-id'], group['lag']
local behind = undelivered(stream, cursor)

local ends = false
local within = not behind or lag and lag > 0 and lag < length
if length == 0 or not within or tonumber((parts(cursor))) > clock then
  local info = fields_of(redis.call('XINFO', 'STREAM', stream))
  local first = info['first-entry'] and info['first-entry'][1] or false
  ends = {first, info['last-generated-id'], info['entries-added']}
end

local read = group['entries-read'] or false
if read and ends and not keeps_counts() then
  local known = redis.call('HGET', hash, 'data-set')
  if known and known ~= data_set() then read = false end
end

-- Released entries belong to no process: they are counted separately and have no idle time. If some are pending,
-- the first entry that is not released is searched for among a thousand.
local oldest, released = false, 0
local function check_oldest(key, pending)
  local at_once, looked, from, others = 1, 0, '-', pending[1]
  for _, owner in ipairs(pending[4]) do
    if released_for(owner[1]) then
      released, others, at_once = released + owner[2], others - owner[2], 100
    end
  end
  while others > 0 and looked < 10 * at_once do
    local rows = redis.call('XPENDING', key, name, from, '+', at_once)
    for _, row in ipairs(rows) do
      if not released_for(row[2]) then
        if row[3] >= 0 and (not oldest or row[3] > oldest) then oldest = row[3] end
        return
      end
    end
    if #rows < at_once then return end
    looked, from = looked + #rows, '(' .. rows[#rows][1]
  end
end
if summary[1] > 0 then check_oldest(stream, summary) end
local lane_summary = pending_of(lane, name)
local lane_pending = lane_summary and lane_summary[1] or 0
if lane_pending > 0 then check_oldest(lane, lane_summary) end

-- The whole hash is read only while some type waits for a handler.
local unhandled = {}
local function is_recent(time) return clock - (tonumber(time or '') or 0) <= 60000 end
if is_recent(redis.call('HGET', hash, 'unhandled')) then
  local fields = fields_of(redis.call('HGETALL', hash))
  local function valid(event_type) return tonumber(fields['type:' .. event_type] or '') or 0 end
  for field, times in pairs(fields) do
    local event_type = string.match(field, '^unhandled:(.*)$')
    if event_type and is_recent(string.match(times, ' (%d+)$'))
      and math.max(valid(event_type), valid('*')) <= clock then
      unhandled[#unhandled + 1] = event_type
    end
  end
  table.sort(unhandled)
  for i = #unhandled, 21, -1 do unhandled[i] = nil end
end

local function error_of(text) return string.sub(text, 1, ERROR_MAX) end

-- How many dead letters are new, and the error of the last one counted, or its reason. The pages are
-- small, because large letters may follow small ones.
local function new_letters()
  local from, count, bytes, error = whole(math.max(clock - is_new_for, 0)) .. '-0', 0, 0, false
  while bytes < BYTES_MAX and count < COUNTED_MAX do
    local most = count == 0 and 1 or math.ceil((BYTES_MAX - bytes) * count / bytes)
    most = math.min(most, math.max(count, 1), PAGE, COUNTED_MAX - count)
    local page = redis.call('XRANGE', dead, from, '+', 'COUNT', most)
    for _, letter in ipairs(page) do
      count = count + 1
      for _, part in ipairs(letter[2]) do bytes = bytes + #part end
      local fields = fields_of(letter[2])
      error = error_of(fields['sj-dead-error'] or fields['sj-dead-reason'] or 'unknown')
      from = following(letter[1])
    end
    if #page < most then break end
  end
  return count, error
end

-- The error of a job that has failed and waits for retry. Other jobs in the set were snoozed, or wait for a process
-- with their handler.
local function error_of_retry()
  local bytes = 0
  for _, ends in ipairs({{0, 4}, {-5, -1}}) do
    for _, member in ipairs(redis.call('ZRANGE', retry, ends[1], ends[2])) do
      if bytes >= BYTES_MAX then return false end
      local record = redis.call('HGET', records, member)
      bytes = bytes + #(record or '')
      local fields = fields_of(job_of(record) or {})
      if (tonumber(fields['sj-attempt'] or '') or 0) > 0 then
        return error_of(fields['sj-error'] or 'unknown')
      end
    end
  end
  return false
end

-- The key of the rate may be of another type.
local function rate_facts()
  local declared = redis.pcall('HGET', KEYS[9], 'rate')
  local set = redis.call('HGET', hash, 'rate')
  local pace = pace_of(set or type(declared) == 'string' and declared or '')
  local ahead, next_start = 0, 0
  if pace then
    local tat, time = redis.pcall('HGET', KEYS[9], 'tat'), redis.call('TIME')
    ahead = (micros_of(tat) or 0) - tonumber(time[1]) * 1000000 - tonumber(time[2])
    next_start = math.min(ahead - pace.tolerance, 86400000000 * 400)
  end
  return {type(declared) == 'string' and declared or '', set or '', whole(math.max(next_start, 0)),
    whole(math.min(math.max(ahead, 0), 86400000000 * 400)),
    limited_for(nil, redis.call('HGET', hash, 'limited'), clock)}
end

local letters, new, letter_error = redis.pcall('XLEN', dead), 0, false
if type(letters) == 'number' and letters > 0 then new, letter_error = new_letters() end
local retrying, retry_error = redis.call('ZCARD', retry), false
if retrying > 0 then retry_error = error_of_retry() end
local paused = redis.call('HGET', hash, 'paused')
local parked, longest = redis.pcall('ZCARD', KEYS[7]), false
if type(parked) == 'number' and parked > 0 then
  local line = redis.pcall('ZRANGE', KEYS[8], 0, 0, 'REV', 'WITHSCORES')
  longest = not line.err and line[1] and {line[1], whole(line[2])} or false
end
return {redis.REDIS_VERSION_NUM, clock, length, ends, cursor, read,
  lag or false, behind or false, summary[1], lane_pending,
  math.max(redis.call('XLEN', lane) - lane_pending, 0), oldest, retrying,
  type(letters) == 'number' and letters or false, paused,
  redis.call('HGET', hash, 'resumed'), redis.call('HGET', hash, 'trimmed-unread') or '0', unhandled,
  new, letter_error, retry_error, released, type(parked) == 'number' and parked or false, longest,
  rate_facts(), redis.call('HGET', hash, 'limit') or ''}
