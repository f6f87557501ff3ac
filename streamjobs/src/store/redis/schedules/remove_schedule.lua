-- Removes a schedule.
--
-- KEYS: stream, schedules, their definitions. ARGV: name, and for how long a declaration counts.
-- Returns: 0 if there was none, 1 if it was removed, 2 if a live process declares it.
--
-- Before: there is a schedule of this name or not, in whatever state.
-- After: it is gone; or a process declares it, and nothing was changed.
-- May race with: firings, which are refused from then on. A repetition finds none.
local schedules, specs, name = KEYS[2], KEYS[3], ARGV[1]
local text, clock = redis.call('HGET', specs, name), now()
local spec = spec_of(text)
if spec and spec.kind == 'code' then
  local at = record_of(specs, name).declared[spec.digest]
  if at and clock - at < tonumber(ARGV[2]) then return 2 end
end
local removed = redis.call('ZREM', schedules, name)
  + redis.call('HDEL', specs, name, name .. '#', name .. '##')
if removed == 0 then return 0 end
change_version(specs, clock)
return 1
