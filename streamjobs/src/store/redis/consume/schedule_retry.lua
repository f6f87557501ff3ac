-- Schedules the retry of a failed job.
--
-- KEYS: stream or lane, dead letters, retry set, retry records. ARGV: group, consumer, source, id,
-- delivery count, what stands for the entry, delay in milliseconds, then the names and values of the
-- job's fields. What stands for it is the id of the dead letter that a renewal stored, "removed", or
-- nothing.
-- Returns: 1 scheduled, 0 owned by another attempt, -1 not pending, -2 not pending and delivered again.
--
-- Before: the entry is pending for this attempt or another one, or not pending.
-- After: if this attempt owned it, its record and its due time are stored, and then the entry is
-- acknowledged, and deleted if it was in the lane. Its payload may be trimmed: the record is
-- complete. If the entry is not pending, but a renewal of this attempt found its payload trimmed
-- and the dead letter stored for that is still there, the retry replaces that letter. If the attempt
-- knows that it was removed, the retry is stored unless it is there already.
-- May race with: claims and acknowledgements. A repeat after a lost answer finds nothing pending
-- and changes nothing; that of a removed entry stores a second retry if the first one was promoted
-- in between.
--
-- After a failover an id can exist twice, so a record of the same name is never overwritten. The
-- record is the first write: a server out of memory refuses it, and the entry stays pending.
local key, dead, retry, records = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, me, source, id, count = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local instead, delay = ARGV[6], ARGV[7]
redis.call('ZCARD', retry)
local state = held(key, group, me, id, count)
if not may_settle(state, dead, instead) then return state end
local job = {}
for i = 8, #ARGV do job[#job + 1] = ARGV[i] end
local record = cmsgpack.pack(job)
local member = (source == 'lane' and 'l:' or 's:') .. id
local due = whole(now() + tonumber(delay))
local stored = redis.call('HSETNX', records, member, record)
if stored == 0 and instead == REMOVED and state == -1 then
  redis.call('ZADD', retry, 'NX', due, member)
  return 1
end
for _ = 1, 64 do
  if stored == 1 then break end
  member = member .. '+'
  stored = redis.call('HSETNX', records, member, record)
end
if stored ~= 1 then return redis.error_reply('ERR too many retries have the same id') end
redis.call('ZADD', retry, due, member)
settle(key, group, source, id, state, dead, instead)
return 1
