-- Schedules events to wait until they are due.
--
-- KEYS: stream, waiting events, their records. ARGV: "~" or "=" for a maximum length, or nothing; entries to keep; for
-- how many milliseconds processes might not know that events are scheduled to the stream; below which delay they may
-- miss an event then; then for each event its id, "at" or "in", that time in milliseconds, how many words its fields
-- have, and these words.
-- Returns: for each event {0, due time, 1 if it waited before or else 0, milliseconds until it is due if perhaps no
-- process checks for it before, or else -1}, or {1, entry id}, or {2, error}.
--
-- Before: an event of this id waits or not.
-- After: if it waited, it waits as before. Else it is in the stream if it is due, and otherwise its
-- record is stored, with the due time as its last field, and then its member. The field '' of the records says since
-- when events have been scheduled to the stream.
-- May race with: calls that enter, cancel or schedule events. A repetition finds the event waiting, and changes
-- nothing; after the event has entered, a repetition is a second event.
--
-- If the member of an event is refused, its record is removed. There is no harmless first write: a server out of memory
-- refuses the first event that has to be stored, and so all later ones.
local stream, later, records = KEYS[1], KEYS[2], KEYS[3]
local trimming, kept, learning, short = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local clock = now()
-- Keys of other types refuse the call before anything is written.
redis.call('XLEN', stream)
redis.call('ZCARD', later)
redis.call('HLEN', records)
local since = tonumber(redis.call('HGET', records, '') or '')
-- The clock may have been set back.
if since and since > clock then since = nil end
local is_new = not since or clock - since < learning

local function waits(due, repeated)
  local rest = math.max(due - clock, 0)
  return {0, whole(due), repeated, is_new and rest < short and rest or -1}
end

local function try(...)
  local answer = redis.pcall(...)
  local err = type(answer) == 'table' and answer.err
  return answer, err or nil
end

local function scheduled(id, due, job)
  local stands = due_of(job_of(redis.call('HGET', records, id)))
  if stands then return waits(stands, 1) end
  if due <= clock then
    local entry, err = try('XADD', stream, unpack(entry_words(trimming, kept, job)))
    return err and {2, err} or {1, entry}
  end
  job[#job + 1] = 'sj-due'
  job[#job + 1] = whole(due)
  local _, err = try('HSET', records, '', whole(since or clock), id, cmsgpack.pack(job))
  if err then return {2, err} end
  since = since or clock
  local _, unplaced = try('ZADD', later, whole(due), id)
  if unplaced then
    -- An event that is reported as not stored must not come back.
    redis.call('HDEL', records, id)
    return {2, unplaced}
  end
  return waits(due, 0)
end

local answers, at = {}, 5
while at <= #ARGV do
  local id, kind, time, count = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local job = {}
  for i = at + 4, at + 3 + count do job[#job + 1] = ARGV[i] end
  at = at + 4 + count
  answers[#answers + 1] = scheduled(id, kind == 'in' and clock + time or time, job)
end
return answers
