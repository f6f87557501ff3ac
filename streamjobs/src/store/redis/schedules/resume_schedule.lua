-- Ends the pause of a schedule.
--
-- KEYS: stream, schedules, their definitions. ARGV: name, digest, when it is due next, the time from which
-- that was computed, and how far that may be from the clock.
-- Returns: {"same"} if it was not paused, {"stored"}, {"other", 0} if there is no such schedule or another
-- definition, or {"stale", clock}.
--
-- Before: there is a schedule of this name and this definition or not.
-- After: if there is one and it was paused, it has the given next time and is not paused any more.
-- May race with: pauses, of which the last one wins. A repetition finds no pause.
local schedules, specs, name = KEYS[2], KEYS[3], ARGV[1]
local clock, next_time, from = now(), tonumber(ARGV[3]), tonumber(ARGV[4])
if math.abs(clock - from) >= tonumber(ARGV[5]) then return {'stale', whole(clock)} end
redis.call('ZCARD', schedules)
local spec = spec_of(redis.call('HGET', specs, name))
if not spec or spec.digest ~= ARGV[2] then return {'other', '0'} end
local record = record_of(specs, name)
if not record.paused then return {'same'} end
-- The next time was ahead when it was computed, and has passed since: its occurrence may have been published before the
-- pause.
if from < next_time and next_time <= clock then return {'stale', whole(clock)} end
redis.call('ZADD', schedules, ARGV[3], name)
record.paused = nil
store_record(specs, name, record)
change_version(specs, clock)
return {'stored'}
