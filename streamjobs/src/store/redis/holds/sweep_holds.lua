-- Ends holds whose job is gone, and lets lines go on that nothing else lets go on.
--
-- KEYS: stream, lane, retry records, dead letters, group hash, holds, busy, lines, line records, turns.
-- ARGV: group, the limit or nothing if this process has none, what it says of its limits, and the cursors
-- that the last call returned for holds and for lines, or 0.
-- Returns: the cursors, 0 at the end; how many holds were ended, how many jobs went from lines to the lane,
-- how many jobs are in lines, and what a live process says of other limits, or nothing.
--
-- Before: as any other script leaves it, or as another client does: an entry may have been acknowledged by
-- hand, a group deleted, a stream flushed.
-- After: of the holds looked at, each has a job: pending, not delivered yet, waiting for its retry, or in
-- the lane. Keys looked at that are below the limit have no line. A process without a limit lets all jobs
-- of lines go on, unless a live process of the group has a limit.
-- May race with: all other scripts of holds. A process of an older version, or with other limits, can read
-- the lane itself and end a job without its hold, which is ended here.
local stream, lane, retries, dead, hash = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local keys = {lane = lane, dead = dead, holds = KEYS[6], busy = KEYS[7], lines = KEYS[8],
  records = KEYS[9], turns = KEYS[10]}
local group, limit, said = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local holds_at, lines_at = ARGV[4], ARGV[5]
local UNREAD_MAX, FED_MAX = 500, 100
check_types(keys.holds, keys.busy, keys.lines, keys.records, keys.turns)

-- What a live process says of limits that is not what this one says. Old versions say nothing.
local function other_limits()
  for _, field in ipairs(redis.call('HKEYS', hash)) do
    local consumer = string.match(field, '^about:(.*)$')
    if consumer and is_alive(hash, consumer) then
      local about = about_of(hash, consumer) or {}
      local limits = type(about['limits']) == 'string' and about['limits'] or ''
      if limits ~= said then return limits, true end
    end
  end
  return '', false
end
local others, disagree = other_limits()

local cursor = group_of(stream, group)
cursor = cursor and cursor['last-delivered-id'] or '0-0'
-- Places of jobs whose retry is in the lane and was not read yet; nil if there are too many to look at.
local unread
local function is_unread(place)
  if unread == nil then
    unread = {}
    local read = pending_of(lane, group) and group_of(lane, group)['last-delivered-id'] or '0-0'
    local entries = redis.call('XRANGE', lane, following(read), '+', 'COUNT', UNREAD_MAX)
    for _, entry in ipairs(entries) do unread[value_of(entry[2], 'sj-held') or ''] = true end
    if #entries >= UNREAD_MAX then unread = false end
  end
  return unread == false or unread[place] == true
end

local function has_job(place)
  local source, id = string.match(place, '^([sl]):(%d+%-%d+)$')
  if not source then return false end
  local key = source == 'l' and lane or stream
  if pending_of(key, group) and redis.call('XPENDING', key, group, id, id, 1)[1] then return true end
  if source == 'l' and has_entry(lane, id) then return true end
  if source == 's' and precedes(cursor, id) and has_entry(stream, id) then return true end
  if redis.call('HEXISTS', retries, place) == 1 then return true end
  return redis.call('HEXISTS', retries, place .. '+') == 1 or is_unread(place)
end

local ended, fed = 0, 0
if limit then
  local page = redis.call('HSCAN', keys.holds, holds_at, 'COUNT', 100)
  holds_at = page[1]
  for i = 1, #page[2], 2 do
    local place = page[2][i]
    if not has_job(place) then
      local key = free_hold(keys, place)
      ended = ended + 1
      if key then fed = fed + feed(keys, key, limit, FED_MAX) end
    end
  end
else
  holds_at = '0'
end
if limit or not disagree then
  local page = redis.call('ZSCAN', keys.turns, lines_at, 'COUNT', 100)
  lines_at = page[1]
  for i = 1, #page[2], 2 do
    if fed < FED_MAX then fed = fed + feed(keys, page[2][i], limit, FED_MAX - fed) end
  end
  -- There may be more. Any cursor is a valid one.
  if fed >= FED_MAX and lines_at == '0' then lines_at = '1' end
  if not limit and redis.call('ZCARD', keys.lines) == 0 then redis.call('DEL', keys.holds, keys.busy) end
else
  lines_at = '0'
end
return {holds_at, lines_at, ended, fed, redis.call('ZCARD', keys.lines), disagree and (others == '' and 'none' or others) or ''}
