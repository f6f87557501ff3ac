-- Makes all jobs of a group wait, because the service that they call has asked for that.
--
-- KEYS: group hash. ARGV: milliseconds.
-- Returns: for how many milliseconds the group waits now.
--
-- Before: the group may wait already.
-- After: `limited` has the time from when and until when no job starts, by the server's clock: for this long,
-- or longer if the group waited longer already. Reservations and promotions report it to every process.
-- May race with: other jobs that have met the same limit; the longest wait applies. The first write is a no-op removal,
-- which a server out of memory accepts.
local hash, clock = KEYS[1], now()
local rest = math.max(limited_for(hash, redis.call('HGET', hash, 'limited'), clock), tonumber(ARGV[1]))
redis.call('HDEL', hash, '')
redis.call('HSET', hash, 'limited', whole(clock) .. ' ' .. whole(clock + rest))
return rest
