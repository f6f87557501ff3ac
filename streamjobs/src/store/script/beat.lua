-- Records that a consumer lives, and how far the group is done.
--
-- KEYS: stream, group hash. ARGV: group, consumer.
-- Answers: the floor.
--
-- Before: the group is there, else the script is refused.
-- After: the consumer's beat is the server's clock. The floor is the id before the lowest pending
-- one, or else the last delivered one: a group that is made again there misses nothing.
-- May race with: anything; it changes nothing but the hash.
local stream, hash = KEYS[1], KEYS[2]
local group, consumer = ARGV[1], ARGV[2]
local summary = redis.call('XPENDING', stream, group)
local floor
if summary[1] > 0 then
  floor = preceding(summary[2])
else
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local fields = fields_of(info)
    if fields['name'] == group then floor = fields['last-delivered-id'] end
  end
end
redis.call('HSET', hash, 'floor', floor, 'beat:' .. consumer, whole(now()))
return floor
