-- Ends jobs with their holds, and lets those that waited for them go on.
--
-- KEYS: stream, lane, dead letters, holds, busy, lines, line records, turns, shares, group hash. ARGV: group, the limit
-- or nothing where keys have fair shares, what it counts together if an operator can change it or else nothing, how
-- many of the jobs are on the stream, and the entry of each: first these, then those in the lane.
-- Returns: how many of the entries were pending, and how many jobs went from a line to the lane.
--
-- Before: each job is done, a dead letter, or gives its place to others while it waits for its retry. Its
-- entry is pending for any consumer, or not. It has a hold or none.
-- After: the entries are not pending, and deleted if they were in the lane. Their holds are gone. For each
-- key that had one of them, jobs of its line are in the lane with a hold, as many as the limit admits. With fair
-- shares, the next take of a process decides which jobs go on.
-- May race with: takes and ends of all processes. A repetition finds nothing pending and no hold.
--
-- The job has ended, whichever process owns the entry by now. The acknowledgement comes first, so that a server out of
-- memory accepts what follows.
local stream, lane = KEYS[1], KEYS[2]
local keys = {lane = lane, dead = KEYS[3], holds = KEYS[4], busy = KEYS[5], lines = KEYS[6],
  records = KEYS[7], turns = KEYS[8], shares = KEYS[9]}
local group, limit = ARGV[1], limit_in_force(KEYS[10], ARGV[3], tonumber(ARGV[2]))
local waiting = check_types(keys)
local FED_MAX, FIRST = 100, 5

local last = FIRST - 1 + tonumber(ARGV[4])
local places = {}
for i = FIRST, #ARGV do places[i - FIRST + 1] = (i <= last and 's:' or 'l:') .. ARGV[i] end
local freed, counts = free_holds(keys, places)
local acknowledged = 0
if last >= FIRST then acknowledged = redis.call('XACK', stream, group, unpack(ARGV, FIRST, last)) end
if #ARGV > last then
  acknowledged = acknowledged + redis.call('XACK', lane, group, unpack(ARGV, last + 1))
  redis.call('XDEL', lane, unpack(ARGV, last + 1))
end
-- A line that cannot go on now is fed by the sweep, or by the next take where keys have fair shares.
local fed, lined = 0, {}
if waiting > 0 and not limit then
  move_shares(keys, freed, counts)
elseif waiting > 0 then
  for _, key in ipairs(freed) do
    if redis.call('ZSCORE', keys.turns, key) then lined[#lined + 1] = key end
  end
  -- At least one for each place that is given back, else a line without a hold waits for the sweep.
  fed = feed(keys, lined, counts, limit, math.max(FED_MAX, #places))
end
return {acknowledged, fed}
