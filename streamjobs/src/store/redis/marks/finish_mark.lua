-- Marks work as done.
--
-- KEYS: mark. ARGV: how long the mark is kept in milliseconds.
-- Returns: 1.
--
-- Before: there may be a mark or not, of any owner.
-- After: the mark says that the work is done. This holds even if the mark has another owner by now,
-- because the work is done.
-- May race with: anything; nothing undoes it. A repeat changes only its time.
--
-- The first write is a removal, for the same reason as in `begin_mark`.
local key, keep = KEYS[1], ARGV[1]
redis.call('HDEL', key, 'owner', 'origin', 'until')
redis.call('HSET', key, 'done', whole(now()))
redis.call('PEXPIRE', key, keep)
return 1
