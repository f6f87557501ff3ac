-- Forgets schedules that no code has any more, and places without a definition.
--
-- KEYS: stream, schedules, their definitions. ARGV: for how long no process must have declared a
-- schedule, then names.
-- Returns: schedules that were removed, and places that were removed because their definition is lost.
--
-- Before: anything.
-- After: of these schedules, those from code that no process has declared for that long are gone. A
-- definition that cannot be read stays, and so does one that was stored at run time.
-- May race with: declarations, which afterwards store the schedule as a new one.
local schedules, specs, silence = KEYS[2], KEYS[3], tonumber(ARGV[1])
local clock, removed, lost = now(), 0, 0
redis.call('ZCARD', schedules)

local function is_forgotten(name, spec)
  if not spec or spec.kind ~= 'code' then return false end
  local record = record_of(specs, name)
  local at = record.declared[spec.digest] or record.since or 0
  return clock - at >= silence
end

for i = 2, #ARGV do
  local name = ARGV[i]
  local text = redis.call('HGET', specs, name)
  if not text then
    lost = lost + redis.call('ZREM', schedules, name)
    redis.call('HDEL', specs, name .. '#', name .. '##')
  elseif is_forgotten(name, spec_of(text)) then
    redis.call('ZREM', schedules, name)
    removed = removed + redis.call('HDEL', specs, name)
    redis.call('HDEL', specs, name .. '#', name .. '##')
  end
end
if removed + lost > 0 then change_version(specs, clock) end
return {removed, lost}
