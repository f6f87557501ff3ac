-- Grants starts to a process of a group with a rate.
--
-- KEYS: rate, group hash; of the first partition where a stream has several.
-- ARGV: starts at most, the rate of the caller's code or nothing, when it joined the group or 0.
-- Returns: starts granted, microseconds from now on until the first may be (below 0 for at once), the
-- microseconds from each to the next, for how many microseconds each is valid, the TAT (the value of `tat`)
-- after the grant, how many microseconds to wait if nothing was granted, when the caller joined, and 1 if the
-- wait is the one in the field `limited`, or else 0. Without a rate all is granted, with an interval of 0.
--
-- Before: `tat` in the rate's key says up to when starts are granted, in microseconds; without the key, no
-- start is granted. `rate`, `by` and `seen` there are the rate in force from the code, when its process
-- joined, and when a process with it was last granted starts.
-- After: `tat` has moved on by the interval for each start. The caller's own rate is stored if it joined
-- after the process whose rate is in force, or if that process was granted nothing for a minute and two
-- intervals. The key expires when it has no more meaning. If nothing was granted, nothing has changed except
-- a `tat` that was cut back.
-- May race with: other processes, which get other starts. If the answer is lost, its starts are lost.
--
-- If `tat` is further ahead than a grant under this rate could have moved it, it comes from a lower rate, or from
-- before the clock was set back. In that case it is cut back, so that it costs at most one interval. The first write is
-- a no-op removal, which a server out of memory accepts, and after it the other writes: jobs free memory, so they
-- continue at their rate. The arithmetic is that of `model/rate/pace.rs`.
local HORIZON, DECLARED = 500000, 60000000
local state, hash = KEYS[1], KEYS[2]
local wanted, mine, joined = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local time = redis.call('TIME')
local clock = tonumber(time[1]) * 1000000 + tonumber(time[2])
if joined == 0 then joined = clock end

-- A text that another client has written in another form counts as nothing.
local function number_in(field)
  return micros_of(redis.call('HGET', state, field))
end

local set = redis.call('HGET', hash, 'rate')
if set ~= 'off' and not pace_of(set) then set = false end
local stored, by, seen = redis.call('HGET', state, 'rate'), number_in('by'), number_in('seen')
local stored_pace = pace_of(stored)
local is_recent = stored_pace and by and seen
  and math.abs(clock - seen) <= DECLARED + 2 * stored_pace.interval
local declares = mine ~= '' and not (is_recent and by > joined)
local rate = set or (mine == '' or declares) and mine or stored

local rest = limited_for(hash, redis.call('HGET', hash, 'limited'), math.floor(clock / 1000))
if rest > 0 then return {0, '0', '0', '0', '0', whole(rest * 1000), whole(joined), 1} end
local pace = pace_of(rate)
if not pace then return {wanted, '0', '0', '0', '0', '0', whole(joined), 0} end

local interval, tolerance = pace.interval, pace.tolerance
local ahead = tolerance + HORIZON
local before = number_in('tat') or 0
local tat = math.min(math.max(before, clock), clock + ahead + interval + 1)
local room = math.floor((clock + ahead - tat) / interval) + 1
local granted = math.min(math.max(room, 0), wanted)
local offset = tat - tolerance - clock
if granted == 0 then
  if tat < before then
    redis.call('HDEL', state, '')
    redis.call('HSET', state, 'tat', whole(math.ceil(tat)))
  end
  local wait = math.max(math.ceil(tat - ahead - clock), 0)
  return {0, '0', '0', '0', '0', whole(wait), whole(joined), 0}
end
tat = math.ceil(tat + granted * interval)
redis.call('HDEL', state, '')
redis.call('HSET', state, 'tat', whole(tat))
if declares then
  redis.call('HSET', state, 'rate', mine, 'by', whole(joined), 'seen', whole(clock))
end
-- If the user may not set the expiry, the key stays and has no meaning.
redis.pcall('PEXPIRE', state, whole((tat - clock + DECLARED + 2 * interval) / 1000))
return {granted, whole(offset), string.format('%.6f', interval), whole(pace.slack), whole(tat), '0',
  whole(joined), 0}
