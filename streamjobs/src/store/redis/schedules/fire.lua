-- Fires schedules.
--
-- KEYS: stream, schedules, their definitions, their log, and for each firing that names a group: its lane,
-- records of retries and records of lines. ARGV: "~" or "=" for a maximum length, or nothing; entries to keep;
-- about how many lines the log keeps; the consumer that fires; then for each firing: name, the expected score as
-- the server printed it, digest, when it is due next, occurrences missed, the group or nothing, occurrences to
-- publish, and for each of these when it is due, how many words its fields have, and these words.
-- Returns: for each firing {0, the ids of its entries…}, {1, "moved", "changed", "paused" or "early"},
-- {2, error}, or {3, occurrences that were skipped, the ids of its entries…}.
--
-- Before: the schedule is due at `expected` and was computed from the definition `digest`.
-- After: all of its occurrences are in the stream, in their order, and then its next time is set. If the firing was
-- refused, nothing was changed. If it names a group, an occurrence is skipped while the group has not ended the job of
-- the last published occurrence.
-- May race with: other processes that fire, and changes of the definition. The first to run publishes the
-- occurrences, because the others expect a score that is gone. A repetition after a lost answer is refused.
--
-- The occurrences are appended before the next time is set. An error of the first append leaves everything as it
-- was, and the same firing is tried again. The first write is a no-op removal: a server out of memory accepts it,
-- and after it the rest. The log is written last, and its errors are ignored.
local stream, schedules, specs, log = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local trimming, kept, lines, by = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local clock, at, next_key = now(), 5, 5
local DAY = 24 * 60 * 60 * 1000
-- How much is read of lanes, retries and lines for one group. One call reads at most five times as much for all groups.
local GROUP_JOBS, GROUP_BYTES = 2000, 2 * 1024 * 1024
local jobs_left, bytes_left = 5 * GROUP_JOBS, 5 * GROUP_BYTES
-- By lane: from which entries the jobs of a group come, and whether all jobs were read.
local seen = {}
-- Keys of other types refuse the call before anything is written.
redis.call('XLEN', stream)
redis.call('HLEN', specs)
redis.call('ZREM', schedules, '')

local function take(count)
  local words = {}
  for i = 1, count do words[i] = ARGV[at + i - 1] end
  at = at + count
  return words
end

-- The firing that begins here.
local function firing()
  local head = take(7)
  local fired = {name = head[1], expected = head[2], digest = head[3], next_time = head[4],
    missed = tonumber(head[5]), occurrences = {}}
  if head[6] ~= '' then
    fired.busy = {group = head[6], lane = KEYS[next_key], KEYS[next_key + 1], KEYS[next_key + 2]}
    next_key = next_key + 3
  end
  for i = 1, tonumber(head[7]) do
    local occurrence = take(2)
    local job = take(tonumber(occurrence[2]))
    job[#job + 1] = 'sj-due'
    job[#job + 1] = occurrence[1]
    fired.occurrences[i] = {due = occurrence[1], job = job}
  end
  return fired
end

-- Why the firing is refused, or nil; and what had become of the schedule before.
local function refusal(fired)
  local score = redis.call('ZSCORE', schedules, fired.name)
  if score ~= fired.expected then return 'moved' end
  if tonumber(score) > clock then return 'early' end
  local spec = spec_of(redis.call('HGET', specs, fired.name))
  if not spec or spec.digest ~= fired.digest then return 'changed' end
  local record = record_of(specs, fired.name)
  return record.paused and 'paused' or nil, record
end

-- Reads the jobs of a lane in small pages, because an entry can have megabytes. Returns true if all were read.
local function read_lane(lane, origins, left)
  local from, count = '-', 1
  while left.jobs > 0 and left.bytes > 0 do
    local page, bytes = redis.call('XRANGE', lane, from, '+', 'COUNT', count), 0
    for _, entry in ipairs(page) do
      origins[value_of(entry[2], 'sj-origin') or ''] = true
      for _, word in ipairs(entry[2]) do bytes = bytes + #word end
    end
    left.jobs, left.bytes = left.jobs - #page, left.bytes - bytes
    if #page < count then return true end
    from = following(page[#page][1])
    count = math.max(1, math.min(2 * count, 50, math.floor(65536 * #page / math.max(bytes, 1))))
  end
end

-- Reads the jobs of records of retries or of lines. Returns true if all were read.
local function read_records(records, origins, left)
  local cursor = '0'
  while left.jobs > 0 and left.bytes > 0 do
    cursor = scan_page(records, cursor, function(_, record)
      local job = job_of(record) or {}
      origins[value_of(job, 'sj-origin') or ''] = true
      left.jobs, left.bytes = left.jobs - 1, left.bytes - #record
      return #job
    end)
    if cursor == '0' or not cursor then return cursor == '0' end
  end
end

-- From which entries those jobs of a group come that are in its lane, retries and lines, and whether all were
-- read. Firings of one group share the result.
local function origins_of(busy)
  local known = seen[busy.lane]
  if known then return known.origins, known.complete end
  local origins, left = {}, {jobs = math.min(GROUP_JOBS, jobs_left), bytes = math.min(GROUP_BYTES, bytes_left)}
  local jobs, bytes = left.jobs, left.bytes
  local complete = redis.call('XLEN', busy.lane) == 0 or read_lane(busy.lane, origins, left)
  for _, records in ipairs({busy[1], busy[2]}) do
    local is_read = redis.call('HLEN', records) == 0 or read_records(records, origins, left)
    complete = complete and is_read
  end
  jobs_left, bytes_left = jobs_left - (jobs - left.jobs), bytes_left - (bytes - left.bytes)
  seen[busy.lane] = {origins = origins, complete = complete}
  return origins, complete
end

-- Whether a group has not ended the job of an entry: the entry waits to be read or is pending, or the job waits
-- for a retry, is in a line, or is in the lane. A job whose entry is gone from the stream has ended, and so have
-- all jobs of a group that does not exist. If there is too much to read, the job counts as unfinished for a day.
local function is_unfinished(busy, id)
  if not pending_of(stream, busy.group) then return false end
  if redis.call('XPENDING', stream, busy.group, id, id, 1)[1]
    or precedes(group_of(stream, busy.group)['last-delivered-id'], id) then
    return has_entry(stream, id)
  end
  if redis.call('HEXISTS', busy[1], 's:' .. id) == 1 then return true end
  local origins, complete = origins_of(busy)
  return origins[id] or not complete and clock - tonumber((parts(id))) < DAY
end

-- Whether the last occurrence that was published is unfinished in the group that the firing names.
local function is_busy(fired, record)
  if not fired.busy or not record.last_entry or not parts(record.last_entry) then return false end
  return is_unfinished(fired.busy, record.last_entry)
end

local function fire(fired)
  local refused, record = refusal(fired)
  if refused then return {1, refused} end
  -- This reads keys that other clients write. If they cause an error, it concerns no other firing.
  local readable, busy = pcall(is_busy, fired, record)
  if not readable then return {2, refusal_of(busy).err} end
  local answer, skipped = {0}, 0
  for _, occurrence in ipairs(fired.occurrences) do
    if busy then
      skipped = skipped + 1
    else
      local entry = redis.pcall('XADD', stream, unpack(entry_words(trimming, kept, occurrence.job)))
      if type(entry) == 'table' then return {2, entry.err} end
      record.last, record.last_entry = tonumber(occurrence.due), entry
      answer[#answer + 1], busy = entry, fired.busy ~= nil
    end
  end
  redis.call('ZADD', schedules, fired.next_time, fired.name)
  local count, all = #answer - 1, #fired.occurrences
  record.fired, record.missed = (record.fired or 0) + count, (record.missed or 0) + fired.missed
  if skipped > 0 then
    record.skipped = (record.skipped or 0) + skipped
    answer[1] = 3
    table.insert(answer, 2, skipped)
  end
  store_record(specs, fired.name, record)
  local due = all > 0 and fired.occurrences[all].due or whole(tonumber(fired.expected))
  redis.pcall('XADD', log, 'MAXLEN', '~', lines, '*', 'schedule', fired.name, 'due', due, 'count', count,
    'missed', whole(fired.missed), 'skipped', skipped, 'entry', count > 0 and record.last_entry or '', 'by', by)
  return answer
end

local answers = {}
while at <= #ARGV do answers[#answers + 1] = fire(firing()) end
return answers
