-- Marks work as done.
--
-- KEYS: mark. ARGV: how long the mark is kept in milliseconds.
-- Answers: 1.
--
-- Before: there may be a mark or not, of anybody.
-- After: the mark says that the work is done. Work that is done is done, whoever owns it by now.
-- May race with: anything; nothing undoes it. Repeating it changes nothing but its time.
--
-- A removal is the first write, as when work begins.
local key, keep = KEYS[1], ARGV[1]
redis.call('HDEL', key, 'owner', 'origin', 'until')
redis.call('HSET', key, 'done', whole(now()))
redis.call('PEXPIRE', key, keep)
return 1
