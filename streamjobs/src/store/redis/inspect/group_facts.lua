-- Reads the state of a group, in one step.
--
-- KEYS: stream, lane, retry set, dead letters, group hash. ARGV: group.
-- Returns: version of the server as a number, clock, length of the stream, its first id or nil, its
-- last generated id, entries ever added, the group's cursor, entries read or nil, lag or nil, first
-- id behind the cursor or nil, pending, pending in the lane, waiting in the lane, idle time of the
-- oldest pending entry or nil, waiting for retry, dead letters or nil, time of the pause or nil,
-- entries counted as trimmed before they were delivered.
--
-- Before: the group exists, else the script is refused.
-- May race with: anything; it changes nothing.
local stream, lane, retry, dead, hash = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local name = ARGV[1]

local summary = redis.call('XPENDING', stream, name)
local group = group_of(stream, name)
local info = fields_of(redis.call('XINFO', 'STREAM', stream))
local first = info['first-entry'] and info['first-entry'][1] or false
local cursor = group['last-delivered-id']
local behind = undelivered(stream, cursor)

local oldest = false
local function check_oldest(key)
  local row = redis.call('XPENDING', key, name, '-', '+', 1)[1]
  if row and row[3] >= 0 and (not oldest or row[3] > oldest) then oldest = row[3] end
end
if summary[1] > 0 then check_oldest(stream) end
local lane_summary = pending_of(lane, name)
local lane_pending = lane_summary and lane_summary[1] or 0
if lane_pending > 0 then check_oldest(lane) end

local letters = redis.pcall('XLEN', dead)
local paused = redis.call('HGET', hash, 'paused')
return {redis.REDIS_VERSION_NUM, now(), info['length'], first, info['last-generated-id'],
  info['entries-added'], cursor, group['entries-read'] or false, group['lag'] or false,
  behind or false, summary[1], lane_pending,
  math.max(redis.call('XLEN', lane) - lane_pending, 0), oldest, redis.call('ZCARD', retry),
  type(letters) == 'number' and letters or false, paused,
  redis.call('HGET', hash, 'trimmed-unread') or '0'}
