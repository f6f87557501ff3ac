-- Moves due jobs from the retry set to the lane, and counts what waits.
--
-- KEYS: stream, lane, retry set, retry records, group hash, dead letters. ARGV: group, jobs at
-- most.
-- Returns: jobs moved, entries of the lane that are not delivered yet, entries of stream and lane
-- that are pending, milliseconds until the next job is due (-1 for no job), count of releases,
-- members that were left where they are, 1 if the group is paused or else 0, the server's clock.
--
-- Before: each member of the retry set has a record of the same name.
-- After: the due jobs are in the lane, in order of their due time, and their members and records
-- are gone. The lane has the group. While the group is paused, no job is moved and none is due.
-- May race with: other processes that promote; the first to run moves a job, the others do not see
-- it any more.
--
-- A job is appended before its record is removed. A member without a readable record has lost it to
-- an eviction or another client: a dead letter without payload is stored for it, or it stays where
-- none can be stored. If the stream's key is of another type, retries still move: nothing counts as
-- pending there. The first write is a no-op removal: a server out of memory accepts it, and after
-- it the appends. They free what they copy; refusing them would keep the memory full.
local stream, lane, retry = KEYS[1], KEYS[2], KEYS[3]
local records, hash, dead = KEYS[4], KEYS[5], KEYS[6]
local group, limit = ARGV[1], ARGV[2]
local paused = redis.call('HEXISTS', hash, 'paused')
local due = {}
if paused == 0 then
  due = redis.call('ZRANGEBYSCORE', retry, '-inf', whole(now()), 'LIMIT', 0, limit)
end
local released = tonumber(redis.call('HGET', hash, 'released') or 0)
redis.call('HLEN', records)
local can_store = storable(dead)
ensure_group(lane, group, '0-0')

local promoted, left = 0, 0
if #due > 0 then redis.call('HDEL', records, '') end
for _, member in ipairs(due) do
  local job = job_of(redis.call('HGET', records, member))
  if job then
    redis.call('XADD', lane, '*', unpack(job))
    promoted = promoted + 1
  elseif can_store then
    local source = string.sub(member, 1, 2) == 'l:' and 'lane' or 'stream'
    store_trimmed(dead, source, string.match(member, '%d+%-%d+') or '0-0', '0', '')
  end
  if job or can_store then
    redis.call('ZREM', retry, member)
    redis.call('HDEL', records, member)
  else
    left = left + 1
  end
end
local in_lane = pending_of(lane, group)[1]
local waiting = math.max(redis.call('XLEN', lane) - in_lane, 0)
local on_stream = redis.pcall('XPENDING', stream, group)
local pending = in_lane + (on_stream.err and 0 or on_stream[1])
local next_due, first = -1, redis.call('ZRANGE', retry, 0, 0, 'WITHSCORES')
-- Members that stay are always due. They must not make the caller return at once.
if first[2] and left == 0 and paused == 0 then
  next_due = math.max(tonumber(first[2]) - now(), 0)
end
return {promoted, waiting, pending, next_due, released, left, paused, now()}
