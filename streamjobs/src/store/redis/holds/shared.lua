-- Functions that the scripts of holds share.
--
-- A hold is a job's place in a limit. Its field in the hash of holds is where the job is: "s:" and the id
-- of its entry on the stream, or "l:" and that of its entry in the lane; a job that waits for its retry is
-- still named by the entry that failed. Its value is the key that the limit counts, and `busy` says how many
-- holds each key has. Jobs beyond the limit wait in lines: a member of `lines` and a record of the same
-- name for each, and for each key the length of its line in `turns`. The record '#' is the number of the last member or
-- turn, and '#bytes' is how many bytes the records have. Where keys have fair shares, `shares` has each key with a
-- line: first the key with the fewest holds, and of several such keys the one that was served least recently.

-- What a limit counts together where it counts all jobs of the group.
local ALL = '*'
-- Longer keys are counted by their digest.
local KEY_BYTES_MAX = 128
-- A job with more fields cannot wait in a line.
local LINE_WORDS_MAX = 2000
local PARKED_MAX, PARKED_BYTES_MAX = 10000, 64 * 1024 * 1024
-- Jobs that one call moves from lines at most, to the lane or, where they cannot be read, to the dead letters.
local LEFT_MAX = 500

-- The limit in force: the number that an operator has set for what the limit counts together ("key" or "group"), or
-- else the caller's. `counted` is nothing for a limit whose number cannot be changed.
local function limit_in_force(hash, counted, limit)
  if counted == '' then return limit end
  local of, set = limit_set(hash)
  local number = of == counted and tonumber(set) or 0
  return number >= 1 and number <= 4294967295 and number or limit
end

-- What decides about an entry: the key that a limit counts, nil if none does; where the job was before its
-- retry, or nil; and the bytes of its fields.
local function look_at(scope, fields)
  local key, before, bytes = nil, nil, 0
  for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    bytes = bytes + #name + #value
    if name == 'sj-key' then key = value elseif name == 'sj-held' then before = value end
  end
  if scope == 'group' then return ALL, before, bytes end
  -- Jobs without a key have a share together.
  if not key or key == '' then return scope == 'share' and '' or nil, before, bytes end
  return #key > KEY_BYTES_MAX and 'sha1:' .. redis.sha1hex(key) or key, before, bytes
end

-- In a sorted set with equal scores, the members of a key's line are together, in order.
local function line_prefix(key)
  return whole(#key) .. ':' .. key .. ':'
end

-- Refuses keys of a type that these scripts cannot use, before anything is changed. The first command is a removal of
-- nothing: after it, a server out of memory accepts what follows.
-- Returns: how many jobs wait in lines.
local function check_types(keys)
  redis.call('HDEL', keys.holds, '')
  redis.call('HLEN', keys.busy)
  redis.call('HLEN', keys.records)
  redis.call('ZCARD', keys.turns)
  if keys.shares then redis.call('ZCARD', keys.shares) end
  return redis.call('ZCARD', keys.lines)
end

-- The values of fields of a hash, false for those that it does not have.
local function values_of(hash, fields)
  return #fields > 0 and redis.call('HMGET', hash, unpack(fields)) or {}
end

-- How many holds each of these keys has.
local function counts_of(busy, names)
  local counts, values = {}, values_of(busy, names)
  for i, name in ipairs(names) do counts[name] = tonumber(values[i] or '') or 0 end
  return counts
end

local function store_counts(busy, counts)
  local some, none = {}, {}
  for key, count in pairs(counts) do
    if count > 0 then
      some[#some + 1], some[#some + 2] = key, count
    else
      none[#none + 1] = key
    end
  end
  if #some > 0 then redis.call('HSET', busy, unpack(some)) end
  if #none > 0 then redis.call('HDEL', busy, unpack(none)) end
end

-- Ends the holds of places. Returns the keys that had them, and how many holds each has now.
local function free_holds(keys, places)
  local held, gone, seen, freed, lost = values_of(keys.holds, places), {}, {}, {}, {}
  for i, place in ipairs(places) do
    local key = held[i]
    if key and not seen[place] then
      seen[place], gone[#gone + 1] = true, place
      if lost[key] then lost[key] = lost[key] + 1 else freed[#freed + 1], lost[key] = key, 1 end
    end
  end
  if #gone == 0 then return freed, lost end
  redis.call('HDEL', keys.holds, unpack(gone))
  local counts = counts_of(keys.busy, freed)
  for _, key in ipairs(freed) do counts[key] = counts[key] - lost[key] end
  store_counts(keys.busy, counts)
  return freed, counts
end

-- Jobs that go into lines together: what is stored for them.
local function new_parking()
  return {records = {}, members = {}, entries = {['s:'] = {}, ['l:'] = {}}, names = {}, added = {}, bytes = 0, jobs = 0}
end

-- Since when a job waits for its first attempt, in milliseconds, as `model/record` reads it: nil for a job that began
-- before, and for a job without an event id, because its id is derived from all fields.
local function waits_since(source, id, values)
  if (values['sj-id'] or '') == '' then return nil end
  if source == 'l:' and values['sj-since'] then return values['sj-since'] end
  if source == 'l:' and values['sj-error'] then return nil end
  return string.match(id, '^%d+')
end

-- Puts a job at the end of its key's line. It keeps the id of the entry that was published, and since when it waits.
local function park(parking, keys, source, id, fields, key)
  local job, values = {}, fields_of(fields)
  local since = waits_since(source, id, values)
  for i = 1, #fields, 2 do
    local name = fields[i]
    if name ~= 'sj-held' and not (since and name == 'sj-since') then
      job[#job + 1], job[#job + 2] = name, fields[i + 1]
    end
  end
  if not values['sj-origin'] then job[#job + 1], job[#job + 2] = 'sj-origin', id end
  if since then job[#job + 1], job[#job + 2] = 'sj-since', since end
  parking.number = (parking.number or tonumber(redis.call('HGET', keys.records, '#') or '') or 0) + 1
  local member, record = line_prefix(key) .. string.format('%020.0f', parking.number), cmsgpack.pack(job)
  local records, members, entries = parking.records, parking.members, parking.entries[source]
  records[#records + 1], records[#records + 2] = member, record
  members[#members + 1], members[#members + 2] = '0', member
  entries[#entries + 1] = id
  if not parking.added[key] then
    parking.names[#parking.names + 1], parking.added[key] = key, 0
  end
  parking.added[key] = parking.added[key] + 1
  parking.bytes, parking.jobs = parking.bytes + #record, parking.jobs + 1
end

-- Stores what was parked, and then acknowledges its entries.
local function store_parking(parking, keys, stream, group)
  if parking.jobs == 0 then return end
  redis.call('HSET', keys.records, '#', whole(parking.number), unpack(parking.records))
  redis.call('HINCRBY', keys.records, '#bytes', parking.bytes)
  redis.call('ZADD', keys.lines, unpack(parking.members))
  for _, key in ipairs(parking.names) do redis.call('ZINCRBY', keys.turns, parking.added[key], key) end
  local read, retried = parking.entries['s:'], parking.entries['l:']
  if #read > 0 then redis.call('XACK', stream, group, unpack(read)) end
  if #retried > 0 then
    redis.call('XACK', keys.lane, group, unpack(retried))
    redis.call('XDEL', keys.lane, unpack(retried))
  end
end

-- The score of a key in `shares`: this much for each hold, plus the number of its last turn.
local HOLD_WEIGHT = 100000000000

local function share_of(holds, turn)
  return whole(holds * HOLD_WEIGHT + turn % HOLD_WEIGHT)
end

-- Where keys that have a line are in `shares` after their holds have changed.
local function move_shares(keys, names, counts)
  for _, key in ipairs(names) do
    local share = redis.call('ZSCORE', keys.shares, key)
    if share then redis.call('ZADD', keys.shares, share_of(counts[key], tonumber(share)), key) end
  end
end

-- Whether lines have as many jobs or bytes as a group may keep there.
local function lines_are_full(keys, waiting)
  local bytes = tonumber(redis.call('HGET', keys.records, '#bytes') or '') or 0
  return waiting >= PARKED_MAX or bytes >= PARKED_BYTES_MAX
end

-- Moves a job of a line to the lane. Returns the id of its entry there; '' if it is a dead letter instead, because its
-- record cannot be read any more; false if none can be stored; or nil and why the lane does not take it.
local function enter_lane(keys, record)
  local job = job_of(record)
  if job then
    local id = redis.pcall('XADD', keys.lane, '*', unpack(job))
    if type(id) == 'string' then return id end
    return nil, id
  end
  if not storable(keys.dead) then return false end
  store_trimmed(keys.dead, 'stream', '0-0', '0', '')
  return ''
end

-- Removes jobs from lines that are in the lane now.
local function leave_lines(keys, left)
  if #left.members == 0 then return end
  redis.call('ZREM', keys.lines, unpack(left.members))
  redis.call('HDEL', keys.records, unpack(left.members))
  if redis.call('ZCARD', keys.lines) == 0 then
    redis.call('DEL', keys.records, keys.turns, keys.shares)
    return
  end
  if left.bytes > 0 then redis.call('HINCRBY', keys.records, '#bytes', -left.bytes) end
  for key, count in pairs(left.taken) do
    if tonumber(redis.call('ZINCRBY', keys.turns, -count, key)) <= 0 then redis.call('ZREM', keys.turns, key) end
  end
end

-- Moves the first jobs of a key's line to the lane, `most` of them. Returns their ids there. What is to be removed from
-- the lines is noted in `left`, and passed over from then on. Nothing is moved for a key whose first job can go
-- nowhere.
local function feed_key(keys, key, most, left)
  local ids, prefix, seen = {}, line_prefix(key), left.taken[key] or 0
  while #ids < most and not left.stopped do
    local range = {'[' .. prefix, '[' .. prefix .. '\255', 'LIMIT', seen, most - #ids}
    local members = redis.call('ZRANGEBYLEX', keys.lines, unpack(range))
    if #members == 0 then
      if seen == 0 then redis.call('ZREM', keys.turns, key) end
      break
    end
    local records = values_of(keys.records, members)
    for i, member in ipairs(members) do
      local id, why = enter_lane(keys, records[i] or nil)
      if not id then
        left.stopped, left.refusal = id == nil, why
        if seen > 0 then left.taken[key] = seen end
        return ids
      end
      if id ~= '' then ids[#ids + 1] = id end
      left.members[#left.members + 1], left.bytes = member, left.bytes + #(records[i] or '')
      seen = seen + 1
      if #left.members >= LEFT_MAX then
        left.stopped, left.has_more = true, true
        break
      end
    end
  end
  if seen > 0 then left.taken[key] = seen end
  return ids
end

local function nothing_left()
  return {members = {}, taken = {}, bytes = 0}
end

-- Moves jobs from the lines of keys to the lane, as long as their key is below the limit. Returns how many, and what
-- `feed_key` has noted in `left`. With no limit they get no hold, and `counts` is not used. At most `most` are moved.
local function feed(keys, names, counts, limit, most)
  local fed, held, changed = 0, {}, {}
  local left = nothing_left()
  for _, key in ipairs(names) do
    local room = limit and math.min(limit - counts[key], most - fed) or most - fed
    for _, id in ipairs(feed_key(keys, key, room, left)) do
      fed = fed + 1
      if limit then
        held[#held + 1], held[#held + 2] = 'l:' .. id, key
        counts[key] = counts[key] + 1
        changed[key] = counts[key]
      end
    end
  end
  if #held > 0 then
    redis.call('HSET', keys.holds, unpack(held))
    store_counts(keys.busy, changed)
  end
  leave_lines(keys, left)
  return fed, left
end
