-- Reads the state of a group, in one step.
--
-- KEYS: stream, lane, retry set, dead letters, group hash. ARGV: group.
-- Returns: version of the server as a number, clock, length of the stream, the ends of the stream or
-- nil, the group's cursor, entries read or nil, lag or nil, first id behind the cursor or nil,
-- pending, pending in the lane, waiting in the lane, idle time of the
-- oldest pending entry or nil, waiting for retry, dead letters or nil, time of the pause or nil,
-- time at which the last pause ended or nil, entries counted as trimmed before they were delivered,
-- and a list of at most 20 event types that were met without a handler within a minute and that no
-- live process declares.
--
-- Before: the group exists, else the script is refused.
-- May race with: anything; it changes nothing.
--
-- The ends are the first id or nil, the last generated id, and the entries ever added. Reading them
-- copies the first and the last payload, so they are read only where the other figures do not say
-- where the cursor is: where all entries may be behind it, where there is no usable lag, in an empty
-- stream, and where the cursor is beyond the clock. The first id behind the cursor cannot be read
-- without its payload.
local stream, lane, retry, dead, hash = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local name = ARGV[1]

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

local oldest = false
local function check_oldest(key)
  local row = redis.call('XPENDING', key, name, '-', '+', 1)[1]
  if row and row[3] >= 0 and (not oldest or row[3] > oldest) then oldest = row[3] end
end
if summary[1] > 0 then check_oldest(stream) end
local lane_summary = pending_of(lane, name)
local lane_pending = lane_summary and lane_summary[1] or 0
if lane_pending > 0 then check_oldest(lane) end

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

local letters = redis.pcall('XLEN', dead)
local paused = redis.call('HGET', hash, 'paused')
return {redis.REDIS_VERSION_NUM, clock, length, ends, cursor, group['entries-read'] or false,
  lag or false, behind or false, summary[1], lane_pending,
  math.max(redis.call('XLEN', lane) - lane_pending, 0), oldest, redis.call('ZCARD', retry),
  type(letters) == 'number' and letters or false, paused,
  redis.call('HGET', hash, 'resumed'), redis.call('HGET', hash, 'trimmed-unread') or '0', unhandled}
