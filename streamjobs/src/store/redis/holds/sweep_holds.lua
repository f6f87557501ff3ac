-- Ends holds whose job is gone, and lets those lines go on that nothing else lets go on.
--
-- KEYS: stream, lane, retry records, dead letters, group hash, holds, busy, lines, line records, turns,
-- shares. ARGV: group, the limit, "share" where keys have fair shares, or nothing if this process has none; what it
-- says of its limits, 1 if a job keeps its place while it waits for its retry, the cursors that the last call returned
-- for holds and for lines: 0 to begin, or nothing to leave them out; and what the limit counts together if an operator can change it, or else
-- nothing.
-- Returns: the cursors, 0 at the end; how many holds were ended, how many jobs went from lines to the lane,
-- how many jobs are in lines, and what a live process says of other limits, or nothing.
--
-- Before: as any other script leaves it, or as another client does: an entry may have been acknowledged by
-- hand, a group deleted, a stream flushed.
-- After: of the holds looked at, each has a job: pending, running although its entry was trimmed, in the lane, or
-- waiting for its retry if it keeps its place then. An entry that is delivered again, after the group was lost, gets its
-- place when it is read. Keys looked at that are below the limit have no line. A process without a limit lets all jobs of
-- lines go on, unless a live process of the group has a limit.
-- May race with: all other scripts of holds. A process of an older version, or with other limits, can read
-- the lane itself and end a job without its hold, which is ended here.
local stream, lane, retries, dead, hash = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local keys = {lane = lane, dead = dead, holds = KEYS[6], busy = KEYS[7], lines = KEYS[8],
  records = KEYS[9], turns = KEYS[10], shares = KEYS[11]}
local group, said, blocks = ARGV[1], ARGV[3], ARGV[4] == '1'
local limit = limit_in_force(hash, ARGV[7], tonumber(ARGV[2]))
local shares = ARGV[2] == 'share'
local holds_at, lines_at = ARGV[5], ARGV[6]
local UNREAD_MAX, PAGE, BYTES_MAX, FED_MAX = 500, 20, 1024 * 1024, 100
-- Stands for the cursor of the first page of lines where that has to be read again: 0 would say that all is done. The
-- server uses no such cursor.
local AGAIN = '18446744073709551615'
check_types(keys)

-- Whether the attempt of a job whose entry was trimmed runs on, as its renewals note: while the note is younger
-- than the lease of a live consumer.
local lease_of = leases(hash, 0)
local function runs_on(place)
  local noted, consumer = string.match(redis.call('HGET', hash, 'runs:' .. place) or '', '^(%d+) (.+)$')
  return noted ~= nil and now() - tonumber(noted) < lease_of(consumer) and is_alive(hash, consumer)
end

-- What a live process says of limits that is not what this one says. Old versions say nothing. Notes of attempts
-- that run no more are removed.
local function other_limits()
  local fields = redis.call('HKEYS', hash)
  for _, field in ipairs(fields) do
    local place = string.match(field, '^runs:(.*)$')
    if place and not runs_on(place) then redis.call('HDEL', hash, field) end
  end
  for _, field in ipairs(fields) do
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

-- What the group has read of the lane.
local lane_cursor
local function lane_read()
  lane_cursor = lane_cursor or pending_of(lane, group) and group_of(lane, group)['last-delivered-id'] or '0-0'
  return lane_cursor
end

-- Places of jobs whose retry is in the lane and was not read yet; false if there are too many to examine.
local unread
local function is_unread(place)
  local from, seen, bytes, found = following(lane_read()), 0, 0, {}
  while unread == nil do
    local entries = redis.call('XRANGE', lane, from, '+', 'COUNT', PAGE)
    for _, entry in ipairs(entries) do
      found[value_of(entry[2], 'sj-held') or ''] = true
      for _, word in ipairs(entry[2]) do bytes = bytes + #word end
      from, seen = following(entry[1]), seen + 1
    end
    if #entries < PAGE then
      unread = found
    elseif seen >= UNREAD_MAX or bytes >= BYTES_MAX then
      unread = false
    end
  end
  return unread == false or unread[place] == true
end

-- Whether a job that a stop cut off keeps this place, although retries do not: it says so itself.
local function is_kept(place)
  for _, name in ipairs({place, place .. '+'}) do
    local job = job_of(redis.call('HGET', retries, name))
    if job and value_of(job, 'sj-held') == place then return true end
  end
  return is_unread(place) and unread ~= false
end

local function has_job(place)
  local source, id = string.match(place, '^([sl]):(%d+%-%d+)$')
  if not source then return false end
  local key = source == 'l' and lane or stream
  if pending_of(key, group) and redis.call('XPENDING', key, group, id, id, 1)[1] then return true end
  if runs_on(place) then return true end
  if source == 'l' and precedes(lane_read(), id) and has_entry(lane, id) then return true end
  if not blocks then return is_kept(place) end
  if redis.call('HEXISTS', retries, place) == 1 then return true end
  return redis.call('HEXISTS', retries, place .. '+') == 1 or is_unread(place)
end

local ended, fed, left = 0, 0, nothing_left()
if (limit or shares) and holds_at ~= '' then
  local page, lost = redis.call('HSCAN', keys.holds, holds_at, 'COUNT', 100), {}
  holds_at = page[1]
  for i = 1, #page[2], 2 do
    if not has_job(page[2][i]) then lost[#lost + 1] = page[2][i] end
  end
  ended = #lost
  local freed, counts = free_holds(keys, lost)
  if limit then fed, left = feed(keys, freed, counts, limit, FED_MAX) end
else
  holds_at = '0'
end
if lines_at ~= '' and (limit or shares or not disagree) then
  local asked = lines_at == AGAIN and '0' or lines_at
  local page, names = redis.call('ZSCAN', keys.turns, asked, 'COUNT', 100), {}
  lines_at = page[1]
  for i = 1, #page[2], 2 do names[#names + 1] = page[2][i] end
  local counts, more = counts_of(keys.busy, names), nil
  if shares then
    -- Lines from before the group had shares have no share yet.
    for _, key in ipairs(names) do
      local share = tonumber(redis.call('ZSCORE', keys.shares, key) or '') or 0
      redis.call('ZADD', keys.shares, share_of(counts[key], share), key)
    end
  elseif fed < FED_MAX and not left.stopped then
    more, left = feed(keys, names, counts, limit, FED_MAX - fed)
    fed = fed + more
  end
  -- Lines of this page may be left to move on, so it is read once more.
  if fed >= FED_MAX or left.has_more then lines_at = asked == '0' and AGAIN or asked end
  if not limit and not shares and redis.call('ZCARD', keys.lines) == 0 then redis.call('DEL', keys.holds, keys.busy) end
else
  lines_at = '0'
end
-- Without holds, none can be counted: another client may have deleted them.
if redis.call('HLEN', keys.holds) == 0 then redis.call('DEL', keys.busy) end
if left.refusal then return left.refusal end
return {holds_at, lines_at, ended, fed, redis.call('ZCARD', keys.lines), disagree and (others == '' and 'none' or others) or ''}
