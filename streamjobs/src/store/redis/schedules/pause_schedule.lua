-- Pauses a schedule.
--
-- KEYS: stream, schedules, their definitions. ARGV: name.
-- Returns: 1 if there is such a schedule, 0 if not.
--
-- Before: there is a schedule of this name or not.
-- After: if there is one, its record has the time of the pause, and it has no next time.
-- May race with: firings, which are refused from then on. A repetition changes nothing.
local schedules, specs, name = KEYS[2], KEYS[3], ARGV[1]
redis.call('ZCARD', schedules)
if redis.call('HEXISTS', specs, name) == 0 then return 0 end
local record, clock = record_of(specs, name), now()
if not record.paused then
  record.paused = clock
  store_record(specs, name, record)
  change_version(specs, clock)
end
redis.call('ZREM', schedules, name)
return 1
