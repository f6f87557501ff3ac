-- Sets a failed job aside until its delay is over.
--
-- KEYS: stream or lane, dead letters, retry set, retry records. ARGV: group, consumer, source, id,
-- delivery count, the id of a dead letter that stands for the entry or nothing, delay in
-- milliseconds, then the names and values of the job's fields.
-- Answers: 1 set aside, 0 held by another attempt, -1 held by nobody.
--
-- Before: the entry is pending for this attempt, for another one, or for nobody.
-- After: if it was this attempt's, its record and its due time are stored, and then the entry is
-- acknowledged, and deleted if it stood in the lane. Its payload may be gone: the record is whole.
-- If the entry is nobody's, but a renewal of this attempt has found its payload gone and left a dead
-- letter that is still there, the job is set aside in place of that letter.
-- May race with: sweeps and acknowledgements. Repeating it after a lost answer finds nothing
-- pending and changes nothing.
--
-- A new master can give an id out twice, so a record of the same name is never overwritten. The
-- record is the first write: a server without memory refuses it and the entry stays pending.
local key, dead, retry, records = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, me, source, id, count = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local old, delay = ARGV[6], ARGV[7]
redis.call('ZCARD', retry)
local state = held(key, group, me, id, count)
if state ~= 1 and not (state == -1 and stands(dead, old)) then return state end
local fields = {}
for i = 8, #ARGV do fields[#fields + 1] = ARGV[i] end
local record = cmsgpack.pack(fields)
local member = (source == 'lane' and 'l:' or 's:') .. id
local stored = redis.call('HSETNX', records, member, record)
for _ = 1, 64 do
  if stored == 1 then break end
  member = member .. '+'
  stored = redis.call('HSETNX', records, member, record)
end
if stored ~= 1 then return redis.error_reply('ERR too many set aside jobs have the same id') end
redis.call('ZADD', retry, whole(now() + tonumber(delay)), member)
if state == -1 then redis.call('XDEL', dead, old) end
redis.call('XACK', key, group, id)
if source == 'lane' then redis.call('XDEL', key, id) end
return 1
