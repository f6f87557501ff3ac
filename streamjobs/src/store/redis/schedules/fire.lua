-- Fires schedules.
--
-- KEYS: stream, schedules, their definitions, their log. ARGV: "~" or "=" for a maximum length, or nothing;
-- entries to keep; about how many lines the log has; the consumer that fires; then for each firing: name,
-- the score that is expected as the server printed it, digest, when it is due next, occurrences missed,
-- occurrences to publish, and for each of these when it is due, how many words its fields have, and these.
-- Returns: for each firing {0, the ids of its entries…}, {1, "moved", "changed", "paused" or "early"}, or
-- {2, error}.
--
-- Before: the schedule is due at `expected` and was computed from the definition `digest`.
-- After: all of its occurrences are in the stream, in their order, and then its next time is set. If it was
-- refused, nothing was changed.
-- May race with: other processes that fire, and changes of the definition. The first to run has the
-- occurrences, because the others expect a score that is gone. A repetition after a lost answer is refused.
--
-- The occurrences are appended before the next time is set. An error of the first append leaves all as it
-- was, and the same firing is tried again. The first write is a no-op removal: a server out of memory
-- accepts it, and after it the rest. The log is written last, and its errors count for nothing.
local stream, schedules, specs, log = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local trimming, kept, lines, by = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local clock, at = now(), 5
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
  local head = take(6)
  local fired = {name = head[1], expected = head[2], digest = head[3], next_time = head[4],
    missed = tonumber(head[5]), occurrences = {}}
  for i = 1, tonumber(head[6]) do
    local occurrence = take(2)
    local job = take(tonumber(occurrence[2]))
    job[#job + 1] = 'sj-due'
    job[#job + 1] = occurrence[1]
    fired.occurrences[i] = {due = occurrence[1], job = job}
  end
  return fired
end

-- Why it is refused, or nil, and what became of the schedule before.
local function refusal(fired)
  local score = redis.call('ZSCORE', schedules, fired.name)
  if score ~= fired.expected then return 'moved' end
  if tonumber(score) > clock then return 'early' end
  local spec = spec_of(redis.call('HGET', specs, fired.name))
  if not spec or spec.digest ~= fired.digest then return 'changed' end
  local record = record_of(specs, fired.name)
  return record.paused and 'paused' or nil, record
end

local function fire(fired)
  local refused, record = refusal(fired)
  if refused then return {1, refused} end
  local answer = {0}
  for _, occurrence in ipairs(fired.occurrences) do
    local entry = redis.pcall('XADD', stream, unpack(entry_words(trimming, kept, occurrence.job)))
    if type(entry) == 'table' then return {2, entry.err} end
    record.last, record.last_entry = tonumber(occurrence.due), entry
    answer[#answer + 1] = entry
  end
  redis.call('ZADD', schedules, fired.next_time, fired.name)
  local count = #fired.occurrences
  record.fired, record.missed = (record.fired or 0) + count, (record.missed or 0) + fired.missed
  store_record(specs, fired.name, record)
  local due = count > 0 and fired.occurrences[count].due or whole(tonumber(fired.expected))
  redis.pcall('XADD', log, 'MAXLEN', '~', lines, '*', 'schedule', fired.name, 'due', due, 'count', count,
    'missed', whole(fired.missed), 'entry', count > 0 and record.last_entry or '', 'by', by)
  return answer
end

local answers = {}
while at <= #ARGV do answers[#answers + 1] = fire(firing()) end
return answers
