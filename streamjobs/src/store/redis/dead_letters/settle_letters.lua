-- Removes dead letters that are stored elsewhere.
--
-- KEYS: dead letters. ARGV: the takers' group, then ids.
-- Answers: how many were there.
--
-- Before: each letter may be there or not, and be pending for any of the takers or for none.
-- After: those that were pending are gone, and pending for none. The others are as they were.
-- May race with: redrives, purges and other takers; whoever comes first finds a letter. Repeating it
-- after a lost answer changes nothing.
--
-- A letter that no taker has is another one: after a failover, a server whose clock is behind gives an
-- id out again. It is stored nowhere, and is taken in its turn.
local dead, group = KEYS[1], ARGV[1]
local removed = 0
for i = 2, #ARGV do
  if redis.call('XACK', dead, group, ARGV[i]) == 1 then
    removed = removed + redis.call('XDEL', dead, ARGV[i])
  end
end
return removed
