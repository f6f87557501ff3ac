-- Records which definitions a process has in its code.
--
-- KEYS: stream, schedules, their definitions. ARGV: how old a mark may be before it is written again, in
-- milliseconds, then for each schedule its name and its digest.
-- Returns: for each {"same"}, {"unplaced"}, {"other", milliseconds since another definition was declared},
-- {"missing"}, {"kind", the other kind}, or {"unreadable"}.
--
-- Before: anything.
-- After: definitions that are stored with the given digest count as declared now.
-- May race with: declarations and firings, which do not depend on the mark. A repetition changes nothing
-- else.
local schedules, specs, age = KEYS[2], KEYS[3], tonumber(ARGV[1])
local clock = now()
-- A server out of memory accepts a removal, and after it the other writes.
redis.call('ZREM', schedules, '')

local function mark(name, digest)
  local text = redis.call('HGET', specs, name)
  if not text then return {'missing'} end
  local spec = spec_of(text)
  if not spec then return {'unreadable'} end
  if spec.kind ~= 'code' then return {'kind', spec.kind} end
  local record = record_of(specs, name)
  if spec.digest ~= digest then
    return {'other', whole(math.max(clock - (record.declared[spec.digest] or 0), 0))}
  end
  if not record.paused and not redis.call('ZSCORE', schedules, name) then return {'unplaced'} end
  -- The mark of any process counts. The clock may have been set back.
  if math.abs(clock - (record.declared[digest] or 0)) >= age then
    record.declared[digest] = clock
    store_record(specs, name, record)
  end
  return {'same'}
end

local answers = {}
for i = 2, #ARGV, 2 do answers[#answers + 1] = mark(ARGV[i], ARGV[i + 1]) end
return answers
