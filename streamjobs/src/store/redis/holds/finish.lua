-- Ends jobs with their holds, and lets those that waited for them go on.
--
-- KEYS: stream, lane, dead letters, holds, busy, lines, line records, turns. ARGV: group, the limit, then
-- the place of each job.
-- Returns: how many of the entries were pending, and how many jobs went from a line to the lane.
--
-- Before: each job is done, a dead letter, or gives its place to others while it waits for its retry. Its
-- entry is pending for any consumer, or not. It has a hold or none.
-- After: the entries are not pending, and deleted if they were in the lane. Their holds are gone. For each
-- key that had one of them, jobs of its line are in the lane with a hold, as many as the limit admits.
-- May race with: takes and ends of all processes. A repetition finds nothing pending and no hold.
--
-- The job has ended, whichever process owns the entry by now. What acknowledges comes first, so that a
-- server out of memory accepts what follows.
local stream, lane = KEYS[1], KEYS[2]
local keys = {lane = lane, dead = KEYS[3], holds = KEYS[4], busy = KEYS[5], lines = KEYS[6],
  records = KEYS[7], turns = KEYS[8]}
local group, limit = ARGV[1], tonumber(ARGV[2])
check_types(keys.holds, keys.busy, keys.lines, keys.records, keys.turns)
local FED_MAX = 100

local on = {['s:'] = {}, ['l:'] = {}}
local freed, seen = {}, {}
for i = 3, #ARGV do
  local place = ARGV[i]
  local ids = on[string.sub(place, 1, 2)]
  ids[#ids + 1] = string.sub(place, 3)
  local key = free_hold(keys, place)
  if key and not seen[key] then
    freed[#freed + 1], seen[key] = key, true
  end
end
local acknowledged = 0
if #on['s:'] > 0 then
  acknowledged = redis.call('XACK', stream, group, unpack(on['s:']))
end
if #on['l:'] > 0 then
  acknowledged = acknowledged + redis.call('XACK', lane, group, unpack(on['l:']))
  redis.call('XDEL', lane, unpack(on['l:']))
end
-- A line that cannot go on now is fed by the sweep.
local fed = 0
local function feed_freed()
  for _, key in ipairs(freed) do fed = fed + feed(keys, key, limit, FED_MAX) end
end
if #freed > 0 then pcall(feed_freed) end
return {acknowledged, fed}
