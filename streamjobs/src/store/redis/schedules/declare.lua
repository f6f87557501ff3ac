-- Stores the definition of a schedule.
--
-- KEYS: stream, schedules, their definitions. ARGV: name, digest, kind, the definition in JSON, when it is
-- due next, the time from which that was computed, for how long another definition must not have been
-- declared, how far that time may be from the clock, schedules at most, and the packed fields of its
-- events or nothing.
-- Returns: {"same"}, {"stored"}, {"other", milliseconds since another definition was declared}, {"kind", the
-- other kind}, {"unreadable"}, {"stale", clock}, or {"full"}.
--
-- Before: a schedule of this name exists or not.
-- After: the schedule has this definition, and a next time unless it is paused: the one that it had under this
-- definition, or else the given one. If the declaration was refused, nothing was changed.
-- May race with: other declarations, of which the last one wins; firings, which name the definition from which
-- they were computed. A repetition finds the same definition and changes nothing else.
--
-- A next time that was ahead when it was computed, and is so no longer, is stale, because the previous definition may
-- have fired it meanwhile.
--
-- The definition is stored before the place in the set. There is no harmless first write: a server out of memory
-- refuses the first write, and so the declaration.
local schedules, specs = KEYS[2], KEYS[3]
local name, digest, kind, about, next_time = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local from, silence = tonumber(ARGV[6]), tonumber(ARGV[7])
local drift, most, fields = tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10]
local clock = now()
if math.abs(clock - from) >= drift then return {'stale', whole(clock)} end
local score, text = redis.call('ZSCORE', schedules, name), redis.call('HGET', specs, name)
local spec, record = spec_of(text), record_of(specs, name)
if text and not spec then return {'unreadable'} end
if not spec and redis.call('HLEN', specs) >= 3 * most then return {'full'} end
if spec and spec.kind ~= kind then return {'kind', spec.kind} end
local is_same = spec and spec.digest == digest
if spec and not is_same then
  local quiet = math.max(clock - (record.declared[spec.digest] or 0), 0)
  if quiet < silence then return {'other', whole(quiet)} end
end
local is_placed = score and is_same
local counts, at = not record.paused and not is_placed, tonumber(next_time)
if counts and from < at and at <= clock then return {'stale', whole(clock)} end
for other, at in pairs(record.declared) do
  if other ~= digest and clock - at > 24 * 60 * 60 * 1000 then record.declared[other] = nil end
end
record.declared[digest], record.since = clock, record.since or clock
if not is_same then
  redis.call('HSET', specs, name, cmsgpack.pack({digest, kind, about, #fields}))
  if fields == '' then
    redis.call('HDEL', specs, name .. '##')
  else
    redis.call('HSET', specs, name .. '##', fields)
  end
end
store_record(specs, name, record)
if counts then redis.call('ZADD', schedules, next_time, name) end
if not is_same or not is_placed then change_version(specs, clock) end
return {is_same and 'same' or 'stored'}
