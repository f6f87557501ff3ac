-- Deletes dead letters that are stored in an archive.
--
-- KEYS: dead letters. ARGV: the archive's group, then ids.
-- Returns: how many there were.
--
-- Before: each letter may exist or not, and be pending for any taker or not pending.
-- After: those that were pending are deleted, and no longer pending. The others are as they were.
-- May race with: redrives, purges and other takers; the first to run finds a letter. A repeat after
-- a lost answer changes nothing.
--
-- A letter that is not pending is not the letter that was taken: after a failover, a server whose
-- clock is behind can generate an id again. That letter is stored in no archive, and is taken in
-- its turn.
local dead, group = KEYS[1], ARGV[1]
local removed = 0
for i = 2, #ARGV do
  if redis.call('XACK', dead, group, ARGV[i]) == 1 then
    removed = removed + redis.call('XDEL', dead, ARGV[i])
  end
end
return removed
