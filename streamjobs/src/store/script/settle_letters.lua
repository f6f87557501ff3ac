-- Removes dead letters that are stored elsewhere.
--
-- KEYS: dead letters. ARGV: the takers' group, then ids.
-- Answers: how many were there.
--
-- Before: each letter may be there or not, and be pending for anybody or nobody.
-- After: they are gone, and pending for nobody.
-- May race with: redrives, purges and other takers; whoever comes first finds a letter. Repeating it
-- after a lost answer changes nothing.
local dead, group = KEYS[1], ARGV[1]
redis.call('XACK', dead, group, unpack(ARGV, 2))
return redis.call('XDEL', dead, unpack(ARGV, 2))
