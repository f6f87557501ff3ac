-- Looks whether some entry has been idle for too long.
--
-- KEYS: stream or lane, group hash. ARGV: group, source, lease in milliseconds, and for how many
-- milliseconds another look speaks for this one.
-- Answers: -1 if there is such an entry, or else how long ago a look found none, which is 0 for this
-- one.
--
-- Before: the group is there, else the script is refused.
-- After: nothing has changed but the note of this look, if it found none.
-- May race with: anything. What becomes idle behind a look is found by the next one.
--
-- A look goes through the pending list up to the first idle entry, and through all of it while every
-- owner renews. If each process of a group did that, the work would grow with the square of their
-- number, because each holds a part of the list. One speaks for all, for its lease and longer ones.
-- A note from the future tells of a clock that was set back, and counts for nothing. Where no note can
-- be read or written, because memory is full or the key holds something else, each looks by itself.
local key, hash = KEYS[1], KEYS[2]
local group, field, lease = ARGV[1], 'looked:' .. ARGV[2], tonumber(ARGV[3])
local clock = now()

local note = redis.pcall('HGET', hash, field)
local at, of = string.match(type(note) == 'string' and note or '', '^(%d+) (%d+)$')
if at and tonumber(of) <= lease then
  local ago = clock - tonumber(at)
  if ago >= 0 and ago < tonumber(ARGV[4]) then return ago end
end

if redis.call('XPENDING', key, group, 'IDLE', whole(lease), '-', '+', 1)[1] then return -1 end
redis.pcall('HSET', hash, field, whole(clock) .. ' ' .. whole(lease))
return 0
