-- Notes finished jobs.
--
-- KEYS: notes. ARGV: how long they are kept in milliseconds, how many at most, then for each job its names
-- and values in MessagePack.
-- Returns: how many notes there are.
--
-- Before: there may be notes.
-- After: each job has a note, and notes that are too old or beyond the number are removed. The key expires when
-- the last one is too old.
-- May race with: other processes that note jobs, and readers. A repeat after a lost answer notes the jobs again.
--
-- The notes are the first writes: a server out of memory refuses them, and then no note is removed.
local notes, keep, most = KEYS[1], tonumber(ARGV[1]), ARGV[2]
for i = 3, #ARGV do redis.call('XADD', notes, '*', unpack(cmsgpack.unpack(ARGV[i]))) end
redis.call('XTRIM', notes, 'MAXLEN', '=', most)
redis.call('XTRIM', notes, 'MINID', '=', whole(math.max(now() - keep, 0)))
redis.call('PEXPIRE', notes, whole(keep))
return redis.call('XLEN', notes)
