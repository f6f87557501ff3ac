-- Acknowledges entries that a process may have in flight: of jobs that are done although their lease was
-- lost, or that an operator names.
--
-- KEYS: stream or lane, group hash. ARGV: group, consumer or "" for an operator, source ("stream" or "lane"),
-- then entry ids.
-- Returns: how many of the entries were pending.
--
-- Before: each entry is pending for this consumer, for another consumer, or not pending.
-- After: none is pending, and those of a lane are deleted. If another consumer had one of them, the count of
-- moves is one higher. From that count its process knows that the job ended here, and was not removed by a
-- foreign client. After a removal by a foreign client it would store the job again.
-- May race with: claims and renewals of any process. A repetition finds nothing pending and counts nothing.
--
-- A server out of memory accepts the count because an acknowledgement comes before it. A group that is missing
-- has nothing pending, and where the hash is of another type there is nothing to count in.
local key, hash = KEYS[1], KEYS[2]
local group, me, source = ARGV[1], ARGV[2], ARGV[3]
local acknowledged, others = 0, false
for i = 4, #ARGV do
  local row = redis.pcall('XPENDING', key, group, ARGV[i], ARGV[i], 1)[1]
  acknowledged = acknowledged + redis.call('XACK', key, group, ARGV[i])
  if source == 'lane' then redis.call('XDEL', key, ARGV[i]) end
  others = others or row and row[2] ~= me
end
if others then redis.pcall('HINCRBY', hash, 'moved', 1) end
return acknowledged
