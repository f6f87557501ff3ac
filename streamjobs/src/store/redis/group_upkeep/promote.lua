-- Moves due jobs from the retry set to the lane, and counts what waits.
--
-- KEYS: stream, lane, retry set, retry records, group hash, dead letters, records of scheduled events, their
-- set, marks of cancelled jobs, the set of schedules, their definitions, and lines of the group's limit.
-- ARGV: group, consumer, jobs at most.
-- Returns: jobs moved, entries of the lane that are not delivered yet, entries of stream and lane
-- that are pending, milliseconds until the next job is due (-1 for no job), count of releases,
-- members that were left where they are, 1 if the group is paused or else 0, the server's clock, records that
-- got their members back, at least how many records lack a member and were not searched for because the user has
-- no right to scan them, at least how many lack one now, 1 if events are scheduled to the stream or else 0, the
-- number of the last mark that cancels a job, 1 if the stream has schedules or else 0, jobs that wait in lines,
-- the rate that an operator has set or nothing, for how many more milliseconds the group waits because of a
-- limit of the service that its jobs call, and what the limit that an operator has set counts together and its number, or nothing.
--
-- Before: each member of the retry set has a record of the same name.
-- After: the due jobs are in the lane, in order of their due time, and their members and records
-- are gone. The lane has the group. While the group is paused, no job is moved and none is due. A job whose type
-- this consumer does not declare stays for a live consumer that declares it, until it is five seconds overdue: the
-- consumer that moves a job usually also reads it, and this consumer could only leave the job again. While the first
-- entry that waits in the lane is such a job, the answer says that no entry waits.
-- May race with: other processes that promote; the first to run moves a job, the others do not see
-- it any more.
--
-- Jobs are appended before their members and records are removed. These removals take one command for all jobs
-- of a call, which are few enough. If a job cannot be moved, the jobs before it are removed before the call ends
-- with the refusal. A call ends early once it has moved many bytes or words; the rest is still due. A member
-- without a readable record has lost it to an eviction or another client: a dead letter without payload is
-- stored for it, or it stays if none can be stored. While there are more records than members, the retry set was
-- lost: page by page, each record without a member gets one again, due when its job was. Only calls that may
-- move jobs do this, because calls that only observe are made for many queues at once. If the user has no right
-- to scan the records, all other jobs are promoted, and the answer says how many records lack a member. If the
-- stream's key is of another type, retries still move: nothing counts as pending there. The first writes are
-- no-op removals. A server out of memory accepts them, and after them accepts creating the group and the
-- appends; and if the user has no right to remove, nothing is appended. The appends free what they copy;
-- refusing them would keep the memory full.
local stream, lane, retry = KEYS[1], KEYS[2], KEYS[3]
local records, hash, dead = KEYS[4], KEYS[5], KEYS[6]
local group, me, limit = ARGV[1], ARGV[2], ARGV[3]
local OVERDUE, BYTES_MAX = 5000, 4 * 1024 * 1024
local clock = now()
local paused = redis.call('HEXISTS', hash, 'paused')
local limited = redis.call('HGET', hash, 'limited')
-- When the job of a record was due, or now if the record does not tell; and how many words the record has.
local function due_in(record)
  local job = job_of(record)
  local due = job and fields_of(job)['sj-due'] or ''
  return string.match(due, '^%d+$') and #due <= 15 and due or whole(clock), job and #job or 0
end

-- Gives the records of one page their members back. Returns how many got one, and how many cannot get one.
local function restore_members(lacking)
  local restored = 0
  redis.call('HDEL', records, '')
  local function restore(member, record)
    local due, words = due_in(record)
    restored = restored + redis.call('ZADD', retry, 'NX', due, member)
    return words
  end
  local cursor = scan_page(records, redis.call('HGET', hash, 'scanned') or '0', restore)
  if not cursor then return restored, lacking - restored end
  redis.call('HSET', hash, 'scanned', cursor)
  return restored, 0
end

local due, restored, stranded, lacking = {}, 0, 0, 0
if paused == 0 then
  lacking = math.max(redis.call('HLEN', records) - redis.call('ZCARD', retry), 0)
  if lacking > 0 and tonumber(limit) > 0 then
    restored, stranded = restore_members(lacking)
    lacking = lacking - restored
  end
  due = redis.call('ZRANGEBYSCORE', retry, '-inf', whole(clock), 'WITHSCORES', 'LIMIT', 0, limit)
end
-- The types of this consumer by name; false if it may have any, nil until they are read.
local mine
local function stays_for_others(job, score)
  if mine == nil then mine = types_of(redis.call('HGET', hash, 'about:' .. me)) end
  if not mine or tonumber(score) < clock - OVERDUE then return false end
  local event_type = value_of(job, 'type')
  if not event_type or mine[event_type] then return false end
  return declared_until(hash, event_type) > clock
end
local released = tonumber(redis.call('HGET', hash, 'released') or 0)
redis.call('HLEN', records)
local can_store = storable(dead)
-- An eviction can have taken the lane while memory is still full.
if #due > 0 or not pending_of(lane, group) then
  redis.call('HDEL', records, '')
  ensure_group(lane, group, '0-0')
end

local promoted, left, stayed, bytes, words = 0, 0, 0, 0, 0
-- Moves one due job. Returns true if its member and record are to be removed.
local function move(member, score)
  local record = redis.call('HGET', records, member)
  local job = job_of(record)
  if job and stays_for_others(job, score) then
    stayed = stayed + 1
    return false
  end
  if job then
    redis.call('XADD', lane, '*', unpack(job))
    promoted, bytes, words = promoted + 1, bytes + #record, words + #job
  elseif can_store then
    local source = string.sub(member, 1, 2) == 'l:' and 'lane' or 'stream'
    store_trimmed(dead, source, string.match(member, '%d+%-%d+') or '0-0', '0', '')
  else
    left = left + 1
  end
  return job or can_store
end

if #due > 0 then redis.call('ZREM', retry, '') end
local moved, is_cut = {}, false
local function move_due()
  for i = 1, #due, 2 do
    if move(due[i], due[i + 1]) then moved[#moved + 1] = due[i] end
    is_cut = bytes > BYTES_MAX or words >= WORDS_MAX
    if is_cut then return end
  end
end
local made, caught = pcall(move_due)
if #moved > 0 then
  redis.call('ZREM', retry, unpack(moved))
  redis.call('HDEL', records, unpack(moved))
end
if not made then return refusal_of(caught) end
local in_lane = pending_of(lane, group)[1]
local waiting = math.max(redis.call('XLEN', lane) - in_lane, 0)
-- Entries are read only if types without a handler were met lately, because an entry may be large.
local met = tonumber(redis.call('HGET', hash, 'unhandled') or '') or 0
if waiting > 0 and clock - met <= 60000 then
  local cursor = group_of(lane, group)['last-delivered-id']
  local first = redis.call('XRANGE', lane, following(cursor), '+', 'COUNT', 1)[1]
  if first and stays_for_others(first[2], (parts(first[1]))) then waiting = 0 end
end
local on_stream = redis.pcall('XPENDING', stream, group)
local pending = in_lane + (on_stream.err and 0 or on_stream[1])
local from = stayed > 0 and '(' .. whole(clock) or '-inf'
local first = redis.call('ZRANGEBYSCORE', retry, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
local next_due = -1
-- Members that stay are always due. They must not make the caller come back at once.
if first[2] and left == 0 and paused == 0 then
  next_due = math.max(time_of(first[2]) - now(), 0)
end
if is_cut then next_due = 0 end
local counted, number = limit_set(hash)
-- If these keys are of another type, the calls that schedule report it.
local field, later = redis.pcall('HEXISTS', KEYS[7], ''), redis.pcall('ZCARD', KEYS[8])
local schedules, specs = redis.pcall('ZCARD', KEYS[10]), redis.pcall('HLEN', KEYS[11])
local parked = redis.pcall('ZCARD', KEYS[12])
local has_schedules = type(schedules) == 'number' and schedules > 0 or type(specs) == 'number' and specs > 0
return {promoted, waiting, pending, next_due, released, left, paused, now(), restored,
  stranded, lacking, is_scheduled_to(field, type(later) == 'number' and later or 0),
  last_number(KEYS[9]), has_schedules and 1 or 0, type(parked) == 'number' and parked or 0,
  redis.call('HGET', hash, 'rate') or '', limited and limited_for(hash, limited, clock) or 0,
  counted and counted .. ' ' .. number or ''}
