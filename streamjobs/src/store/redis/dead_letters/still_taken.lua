-- Finds which taken dead letters still exist and are this taker's.
--
-- KEYS: dead letters. ARGV: the archive's group, consumer, then ids.
-- Returns: the ids of those, in the order asked for.
--
-- Before: each letter may exist or not, and be pending for any taker or not pending.
-- After: nothing has changed.
-- May race with: redrives, purges and other takers. What one of them does next is not in the answer.
--
-- A redrive or a purge deletes a letter and leaves it pending: so both are checked.
local dead, group, me = KEYS[1], ARGV[1], ARGV[2]
local found = {}
if not pending_of(dead, group) then return found end
for i = 3, #ARGV do
  local id = ARGV[i]
  local row = redis.call('XPENDING', dead, group, id, id, 1, me)[1]
  if row and has_entry(dead, id) then found[#found + 1] = id end
end
return found
