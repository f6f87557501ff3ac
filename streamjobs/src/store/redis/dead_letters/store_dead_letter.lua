-- Stores a dead letter.
--
-- KEYS: stream or lane, dead letters. ARGV: group, consumer, source, id, delivery count, the id of a
-- dead letter that stands for the entry or nothing, then the names and values of the letter's fields.
-- Answers: 1 buried, 0 held by another attempt, -1 held by nobody.
--
-- Before: the entry is pending for this attempt, for another one, or for nobody.
-- After: if it was this attempt's, the letter is stored, and then the entry is acknowledged, and
-- deleted if it stood in the lane. If nobody's, but a renewal of this attempt has found its payload
-- gone and left a dead letter that is still there, the letter is stored in place of that one.
-- May race with: sweeps and acknowledgements. Repeating it after a lost answer finds nothing
-- pending and changes nothing.
--
-- The letter is the first write: where it cannot be stored, the entry stays pending.
local key, dead = KEYS[1], KEYS[2]
local group, me, source, id, count = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local old = ARGV[6]
local state = held(key, group, me, id, count)
if state ~= 1 and not (state == -1 and stands(dead, old)) then return state end
redis.call('XADD', dead, '*', unpack(ARGV, 7))
if state == -1 then redis.call('XDEL', dead, old) end
redis.call('XACK', key, group, id)
if source == 'lane' then redis.call('XDEL', key, id) end
return 1
