-- Reads how many partitions a stream has. A process that wants more adds them.
--
-- KEYS: partition hash of the stream. ARGV: how many the caller wants, 0 for as many as there are.
-- Returns: how many there are from now on.
--
-- Before: the hash may exist or not. Without it there is one partition, which is the stream itself.
-- After: the field `count` is the larger of the two numbers, and `version` says how the partitions are
-- named; or nothing has changed. The number never falls: events in a partition that no process reads
-- would never run.
-- May race with: other processes that start, of which each sees the larger number.
local stored = tonumber(redis.call('HGET', KEYS[1], 'count') or 1)
local wanted = tonumber(ARGV[1])
if wanted <= stored then return stored end
redis.call('HSET', KEYS[1], 'count', wanted, 'version', 1)
return wanted
