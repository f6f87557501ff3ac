-- Moves due events to their stream.
--
-- KEYS: stream, waiting events, their records. ARGV: "~" or "=" for a maximum length, or nothing;
-- entries to keep; events at most; bytes of their records at most; the cursor of the last call, or 0.
-- Returns: members and records of events that are lost, events that got their places back, at least how many events
-- cannot get theirs back, 1 if more are due or else 0, the next cursor, the clock, events that wait, the time at which
-- the next one is due (-1 for none), 1 if events are scheduled to the stream or else 0, then for each event that was
-- moved, how many milliseconds after its due time.
--
-- Before: each member of the set has a record of the same name, which is an entry's fields.
-- After: the due events are in the stream, and their members and records are gone.
-- May race with: other processes that enter events, and cancellations. The first to run gets the event, and the others
-- do not see it any more.
--
-- Events are appended before their members and records are removed, even if the next event is refused. A member without
-- a readable record has lost it to an eviction or another client; it is removed and counted, and no group can be told.
-- While there are more records than members, the set was lost: page by page, each record without a member gets one
-- again, due when its record says. A record that cannot be read is removed and counted as lost; otherwise it would be
-- searched for again and again. Pages are limited in bytes and words too, because other clients wait. The first write
-- is a no-op removal: a server out of memory accepts it, and after it the appends.
local stream, later, records = KEYS[1], KEYS[2], KEYS[3]
local trimming, kept = ARGV[1], ARGV[2]
local limit, bytes_max, cursor = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
redis.call('XLEN', stream)
local field = redis.call('HEXISTS', records, '')
local misplaced = redis.call('HLEN', records) - field - redis.call('ZCARD', later)
local clock = now()

-- Gives the records of one page their members back. Returns how many got their member, how many cannot get it, and how
-- many records were removed because they cannot be read.
local function restore_members()
  if misplaced <= 0 then return 0, 0, 0 end
  local restored, lost = 0, 0
  redis.call('ZREM', later, '')
  local function restore(id, record)
    if id == '' then return 0 end
    local job = job_of(record)
    local due = due_of(job)
    local added = redis.call('ZADD', later, 'NX', whole(due or 0), id)
    if due then
      restored = restored + added
    elseif added == 1 then
      redis.call('ZREM', later, id)
      lost = lost + redis.call('HDEL', records, id)
    end
    return job and #job
  end
  local next_cursor = scan_page(records, cursor, restore)
  if not next_cursor then return restored, misplaced - restored - lost, lost end
  cursor = next_cursor
  return restored, 0, lost
end

-- Appends an event. Returns how many milliseconds after its due time that is, and how many words it has. Returns nil if
-- its record cannot be read or the append is refused; in the second case also the refusal. The server checks the words
-- itself, which costs less than checking them here.
local function append(record)
  local readable, job = pcall(cmsgpack.unpack, record or '')
  local count = readable and type(job) == 'table' and #job or 0
  local due = count > 0 and count <= JOB_WORDS_MAX and due_of(job)
  if not due then return nil end
  local entry
  if trimming == '' then
    entry = redis.pcall('XADD', stream, '*', unpack(job))
  else
    entry = redis.pcall('XADD', stream, 'MAXLEN', trimming, kept, '*', unpack(job))
  end
  if type(entry) == 'string' then return math.max(clock - due, 0), count end
  return nil, job_of(record) and entry
end

local restored, stranded, lost = restore_members()
local due = redis.call('ZRANGEBYSCORE', later, '-inf', whole(clock), 'LIMIT', 0, limit)
if #due > 0 then redis.call('ZREM', later, '') end
local bytes, words, lateness = 0, 0, {}
local moved, refusal = 0, nil
while moved < #due and bytes < bytes_max and words < WORDS_MAX do
  local record = redis.call('HGET', records, due[moved + 1])
  local late, outcome = append(record)
  if late then
    lateness[#lateness + 1] = late
    words = words + outcome
  elseif outcome then
    refusal = outcome
    break
  else
    lost = lost + 1
  end
  moved, bytes = moved + 1, bytes + #(record or '')
end
if moved > 0 then
  redis.call('ZREM', later, unpack(due, 1, moved))
  redis.call('HDEL', records, unpack(due, 1, moved))
elseif refusal then
  return refusal
end
-- If the next event was refused, the next call returns the refusal.
local has_more = limit > 0 and not refusal and (moved < #due or #due == limit) and 1 or 0
local first = redis.call('ZRANGE', later, 0, 0, 'WITHSCORES')
local waiting = redis.call('ZCARD', later)
local answer = {lost, restored, stranded, has_more, cursor, now(), waiting,
  first[2] and whole(time_of(first[2])) or -1, is_scheduled_to(field, waiting)}
for _, late in ipairs(lateness) do answer[#answer + 1] = late end
return answer
