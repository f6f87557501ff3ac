-- Changes when a waiting event is due.
--
-- KEYS: stream, waiting events, their records. ARGV: "~" or "=" for a maximum length, or nothing;
-- entries to keep; name; "at" or "in"; that time in milliseconds.
-- Returns: {0} if no event of this id waits, {1, due time} if it waits now, {2, entry id, its event id or
-- nil} if it was due.
--
-- Before: an event of this id waits or not.
-- After: if one does, its record and its member have the new time; or it is in the stream, and its member
-- and its record are gone.
-- May race with: calls that enter or cancel events; the first to run gets the event. A repetition sets
-- the time again; after the event has entered, a repetition finds nothing.
--
-- An event that is due is appended first, which works on a server out of memory too. Such a server
-- refuses every other change of the time, before anything has changed.
local stream, later, records = KEYS[1], KEYS[2], KEYS[3]
local trimming, kept, id, kind, time = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
redis.call('XLEN', stream)
redis.call('ZCARD', later)
local job = job_of(redis.call('HGET', records, id))
if not due_of(job) then return {0} end
local clock = now()
local due = kind == 'in' and clock + time or time
job[#job] = whole(math.max(due, 0))
if due > clock then
  redis.call('HSET', records, id, cmsgpack.pack(job))
  redis.call('ZADD', later, whole(due), id)
  return {1, whole(due)}
end
redis.call('ZREM', later, '')
local entry = redis.call('XADD', stream, unpack(entry_words(trimming, kept, job)))
redis.call('ZREM', later, id)
redis.call('HDEL', records, id)
return {2, entry, value_of(job, 'sj-id') or false}
