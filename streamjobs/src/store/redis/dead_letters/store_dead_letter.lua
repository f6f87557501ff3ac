-- Stores a dead letter.
--
-- KEYS: stream or lane, dead letters, and the lock of the event if it has one. ARGV: group, consumer, source,
-- id, delivery count, what stands for the entry, the event id if there is a lock or else nothing, then the
-- names and values of the letter's fields. What stands for the entry is the id of the dead letter that a
-- renewal stored, "removed", or nothing.
-- Returns: 1 stored, 0 owned by another attempt, -1 not pending, -2 not pending and delivered again.
--
-- Before: the entry is pending for this attempt or another one, or not pending.
-- After: if this attempt owned it, the letter is stored, and then the entry is acknowledged, and
-- deleted if it was in the lane. If the entry is not pending, but a renewal of this attempt found
-- its payload trimmed and the dead letter stored for that is still there, this letter replaces that
-- one. If the attempt knows that the entry was removed, the letter is stored. The lock ends with the job if
-- it belongs to this event.
-- May race with: claims and acknowledgements. A repeat after a lost answer finds nothing pending and changes
-- nothing; a repeat for a removed entry stores a second letter.
--
-- The letter is the first write: if it cannot be stored, the entry stays pending.
local key, dead = KEYS[1], KEYS[2]
local group, me, source, id, count = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local instead = ARGV[6]
local state = held(key, group, me, id, count)
if not may_settle(state, dead, instead) then return state end
redis.call('XADD', dead, '*', unpack(ARGV, 8))
settle(key, group, source, id, state, dead, instead)
if KEYS[3] then free_lock(KEYS[3], ARGV[7]) end
return 1
