-- Reads entries so that keys have fair shares of the slots: the next job is of the key that has the fewest jobs in
-- flight, and of several such keys, of the one that was served least recently.
--
-- KEYS: stream, lane, dead letters, holds, busy, lines, line records, turns, shares. ARGV: group, consumer, and
-- how many slots are free.
-- Returns: "drained" if nothing is left, "more" if something may be, or "full" if what is left cannot run now;
-- how many jobs were put into lines; and the entries to run: those of the stream, and those of the lane.
--
-- Before: the group exists on stream and lane.
-- After: each returned entry is pending for the consumer and has a hold. Other entries that were read are at the end of
-- their key's line and not pending. If a slot stays free, no line is left, or the answer is "more" or "full". Entries
-- beyond what is read are unchanged.
-- May race with: takes and ends of all processes.
--
-- The stream is read ahead of what can run, so that a key is found whose jobs are behind many jobs of another key. How
-- far it is read is bounded for a call, and by how much lines may have. A job of a line goes through the lane, as its
-- entry was acknowledged. A record is stored before its entry is acknowledged. A job with too many fields to be carried
-- cannot wait, and is taken at once; after as many such jobs as slots are free, nothing more is read. An answer that is
-- lost loses nothing: its entries are pending, with their holds, and are recovered.
local stream, lane = KEYS[1], KEYS[2]
local keys = {lane = lane, dead = KEYS[3], holds = KEYS[4], busy = KEYS[5], lines = KEYS[6], records = KEYS[7],
  turns = KEYS[8], shares = KEYS[9]}
local group, me, free = ARGV[1], ARGV[2], tonumber(ARGV[3])
local LOOKED_MAX, LANE_AHEAD, FIRST_PAGE, BYTES_MAX = 500, 100, 10, 1024 * 1024
local waiting = check_types(keys)
local parking, left = new_parking(), nothing_left()
local taken = {['s:'] = {}, ['l:'] = {}}
-- What was read: for each entry its source, the entry, its place, its key, and whether it was taken.
local read, read_bytes, wide = {}, 0, 0

-- Reads as many entries as asked for, in pages whose length depends on how many bytes the entries before had. Returns
-- whether none is left to read.
local function read_from(source, key, most)
  local page = FIRST_PAGE
  while most > 0 and read_bytes < BYTES_MAX and wide < free do
    local asked = math.min(page, most)
    local reply = redis.call('XREADGROUP', 'GROUP', group, me, 'COUNT', asked, 'STREAMS', key, '>')
    local entries = reply and reply[1] and reply[1][2] or {}
    for _, entry in ipairs(entries) do
      local counted, _, bytes = look_at('share', entry[2])
      read_bytes = read_bytes + bytes
      if #entry[2] > LINE_WORDS_MAX then wide = wide + 1 end
      read[#read + 1] = {source = source, entry = entry, place = source .. entry[1], key = counted}
    end
    if #entries < asked then return true end
    most = most - asked
    page = math.max(math.floor((BYTES_MAX - read_bytes) * #read / math.max(read_bytes, 1)), 1)
  end
  return false
end
-- While lines are full, nothing is read from the stream, and from the lane only as many entries as slots are free.
local is_full = lines_are_full(keys, waiting)
local lane_is_read = read_from('l:', lane, free + (is_full and 0 or LANE_AHEAD))
local stream_is_read = read_from('s:', stream, is_full and 0 or math.max(LOOKED_MAX - #read, free))

-- How many holds each key has, when it had its last turn, and whether it has a line. The jobs of keys without a line
-- wait in `waits`.
local counts, turn_of, lined, waits = {}, {}, {}, {}
local function next_turn()
  parking.number = (parking.number or tonumber(redis.call('HGET', keys.records, '#') or '') or 0) + 1
  return parking.number
end

local held_words, changed = {}, {}
local function hold(place, key)
  held_words[#held_words + 1], held_words[#held_words + 2] = place, key
  counts[key] = counts[key] + 1
  changed[key], free = counts[key], free - 1
end

local function take(job)
  local of = taken[job.source]
  job.entry[3], job.is_taken = '1', true
  of[#of + 1] = job.entry
end

-- Learns what is known of the keys of what was read. Returns their names, in the order of their turns.
local function know_keys()
  local names = {}
  for _, job in ipairs(read) do
    if not turn_of[job.key] then names[#names + 1], turn_of[job.key] = job.key, next_turn() end
  end
  counts = counts_of(keys.busy, names)
  for _, key in ipairs(names) do
    lined[key] = waiting > 0 and redis.call('ZSCORE', keys.turns, key)
    if not lined[key] then waits[key] = {} end
  end
  return names
end

-- Takes entries that have a hold from before the group was lost, as far as slots are free, and those that cannot
-- wait. The others wait, without a hold.
local function sort_read()
  local places, lost = {}, {}
  for i, job in ipairs(read) do
    places[i], job.is_wide = job.place, #job.entry[2] > LINE_WORDS_MAX
  end
  for i, key in ipairs(values_of(keys.holds, places)) do
    local job = read[i]
    if key and (free > 0 or job.is_wide) then
      take(job)
      free = free - 1
    elseif key then
      lost[#lost + 1] = job.place
    end
  end
  local _, rest = free_holds(keys, lost)
  for key, count in pairs(rest) do counts[key] = count end
  for _, job in ipairs(read) do
    local jobs = waits[job.key]
    if job.is_wide and not job.is_taken then
      take(job)
      hold(job.place, job.key)
    elseif not job.is_taken and jobs then
      jobs[#jobs + 1] = job
    end
  end
end

-- Keys whose jobs wait in what was read, by how many holds they have. Of keys with equally many, the one whose last
-- turn was earliest comes first.
local levels, lowest, highest = {}, 0, -1
local function queue_up(key)
  local holds = counts[key]
  levels[holds] = levels[holds] or {first = 1}
  levels[holds][#levels[holds] + 1] = key
  highest = math.max(highest, holds)
end

-- The first of these keys, and its share.
local function first_read()
  while lowest <= highest do
    local level = levels[lowest]
    local key = level and level[level.first]
    if key then return key, tonumber(share_of(lowest, turn_of[key])) end
    lowest = lowest + 1
  end
end

local function take_from_read(key)
  local jobs, level = waits[key], levels[lowest]
  local job = jobs[jobs.next]
  level.first, jobs.next, turn_of[key] = level.first + 1, jobs.next + 1, next_turn()
  take(job)
  hold(job.place, key)
  if jobs[jobs.next] then queue_up(key) end
end

-- The key with the smallest share of those that have a line.
local function first_line()
  if waiting == 0 or not lane_is_read or left.stopped then return nil end
  local first = redis.call('ZRANGE', keys.shares, 0, 0, 'WITHSCORES')
  return first[1], tonumber(first[2])
end

-- Gives shares to some lines that have none: they are from before the group had shares, or another client has deleted
-- the shares.
local function find_lines()
  if waiting == 0 or redis.call('ZCARD', keys.shares) > 0 then return end
  local page, names = redis.call('ZSCAN', keys.turns, '0', 'COUNT', 100)[2], {}
  for i = 1, #page, 2 do names[#names + 1] = page[i] end
  local holds = counts_of(keys.busy, names)
  for _, key in ipairs(names) do redis.call('ZADD', keys.shares, share_of(holds[key], 0), key) end
end

-- Moves the next job of a key's line to the lane. A line that gives no job has no share any more: it is empty, which
-- `feed_key` has noted, or its first job can go nowhere, and the next sweep examines it again.
local fed = 0
local function take_from_line(key)
  if not counts[key] then counts[key] = counts_of(keys.busy, {key})[key] end
  local id = feed_key(keys, key, 1, left)[1]
  if id then
    hold('l:' .. id, key)
    fed, turn_of[key] = fed + 1, next_turn()
    local jobs = tonumber(redis.call('ZSCORE', keys.turns, key) or '') or 0
    if jobs > left.taken[key] then
      redis.call('ZADD', keys.shares, share_of(counts[key], turn_of[key]), key)
      return
    end
  end
  if id or not left.stopped then redis.call('ZREM', keys.shares, key) end
end

local function take_by_shares(names)
  for _, key in ipairs(names) do
    if waits[key] and waits[key][1] then
      waits[key].next = 1
      queue_up(key)
    end
  end
  find_lines()
  local line, line_share = first_line()
  while free > 0 do
    local key, share = first_read()
    if line and (not key or line_share <= share) then
      take_from_line(line)
      line, line_share = first_line()
    elseif key then
      take_from_read(key)
    else
      break
    end
  end
end

local names = know_keys()
sort_read()
take_by_shares(names)
if #held_words > 0 then redis.call('HSET', keys.holds, unpack(held_words)) end
store_counts(keys.busy, changed)
for _, job in ipairs(read) do
  if not job.is_taken then park(parking, keys, job.source, job.entry[1], job.entry[2], job.key) end
end
store_parking(parking, keys, stream, group)
for _, key in ipairs(parking.names) do
  if not redis.call('ZSCORE', keys.shares, key) then
    redis.call('ZADD', keys.shares, share_of(counts[key], turn_of[key]), key)
  end
end
leave_lines(keys, left)
if parking.number and redis.call('ZCARD', keys.lines) > 0 then
  redis.call('HSET', keys.records, '#', whole(parking.number))
end
if fed > 0 then
  local reply = redis.call('XREADGROUP', 'GROUP', group, me, 'COUNT', fed, 'STREAMS', lane, '>')
  for _, entry in ipairs(reply[1][2]) do
    entry[3] = '1'
    taken['l:'][#taken['l:'] + 1] = entry
  end
end
local has_taken = #taken['s:'] + #taken['l:'] > 0
if left.refusal and not has_taken then return left.refusal end
local state = 'more'
if free > 0 and not has_taken and #read == 0 and not left.has_more then
  -- What is in lines now could not go on.
  state = redis.call('ZCARD', keys.lines) > 0 and 'full' or 'drained'
elseif free > 0 and lane_is_read and stream_is_read and parking.jobs == 0 and not left.has_more then
  state = left.stopped and 'full' or 'drained'
end
return {state, parking.jobs, cmsgpack.pack(taken['s:']), cmsgpack.pack(taken['l:'])}
