-- Finds the job that has the place for which the longest line of a group waits.
--
-- KEYS: stream, lane, retry set, retry records, holds and turns. ARGV: group, and how many places to examine at most.
-- Returns: nil if no job waits in a line. Otherwise the clock, the key with the longest line, how many jobs wait in it,
-- how many places were examined, and 1 if those are all, or else 0; then, of the oldest place of that key among them,
-- its name, the event id of its job or nil, the consumer that has it pending or nil, for how many milliseconds it was
-- not renewed or nil, and when it is due for its retry or nil. Without such a place, the name is nil.
--
-- Before: the group exists, else the script is refused.
-- May race with: anything; it changes nothing.
--
-- A step of the scan reads one bucket of the hash, or a hash of few fields as a whole. Of the stream, the lane or the
-- retry records, it reads the payload of one job.
local group, most = ARGV[1], tonumber(ARGV[2])
redis.call('XPENDING', KEYS[1], group)
local line = redis.call('ZRANGE', KEYS[6], 0, 0, 'REV', 'WITHSCORES')
if not line[1] then return false end

local key, cursor, looked = line[1], '0', 0
local place, age = false, nil
repeat
  local step = redis.call('HSCAN', KEYS[5], cursor, 'COUNT', 50)
  cursor = step[1]
  for i = 1, #step[2], 2 do
    looked = looked + 1
    if step[2][i + 1] == key then
      local since = tonumber((parts(string.sub(step[2][i], 3))))
      if not place or since < age then place, age = step[2][i], since end
    end
  end
until cursor == '0' or looked >= most

local event_id, consumer, idle, due = false, false, false, false
if place then
  local source, id = string.sub(place, 1, 2) == 'l:' and KEYS[2] or KEYS[1], string.sub(place, 3)
  local row = redis.call('XPENDING', source, group, id, id, 1)[1]
  if row then
    consumer, idle = released_for(row[2]) and '' or row[2], row[3] >= 0 and row[3] or false
  else
    -- A second job of the entry has its record under a name of its own.
    for _, name in ipairs({place, place .. '+'}) do
      local score = redis.call('ZSCORE', KEYS[3], name)
      if score then
        due = whole(time_of(score))
        event_id = fields_of(job_of(redis.call('HGET', KEYS[4], name)) or {})['sj-id'] or false
        break
      end
    end
  end
  local entry = not due and redis.call('XRANGE', source, id, id)[1]
  if entry and entry[2] then event_id = fields_of(entry[2])['sj-id'] or false end
end
return {now(), key, whole(line[2]), looked, cursor == '0' and 1 or 0, place, event_id, consumer, idle, due}
