-- Reads schedules in the order of the bytes of their names.
--
-- KEYS: stream, schedules, their definitions. ARGV: the name after which to begin, schedules at most, 1 to
-- read the fields of their events as well or else 0, how many bytes of these fields at most, and the only
-- name to read, or nothing for all.
-- Returns: the clock, the number that changes with each definition, 1 if there are more or else 0, then
-- for each schedule a row: name, score as the server prints it and the same in whole milliseconds or nil,
-- digest, kind and JSON or nil if they cannot be read, since, fired, missed, runs, the last occurrence,
-- its entry, since when it is paused, when it was last declared, each of these or nil, the size of its
-- events' fields in bytes, these fields or nil, and how many occurrences were skipped or nil.
--
-- May race with: anything; it changes nothing.
local schedules, specs = KEYS[2], KEYS[3]
local after, limit, payloads, bytes_max = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1', tonumber(ARGV[4])
-- A server whose environment names a language compares texts as the language does, and then `a` comes before `Z`.
-- Callers merge the lists of several partitions, by bytes.
local is_bytewise = 'Z' < 'a'
local function precedes(one, other)
  if is_bytewise then return one < other end
  for i = 1, math.min(#one, #other) do
    local left, right = string.byte(one, i), string.byte(other, i)
    if left ~= right then return left < right end
  end
  return #one < #other
end

local names, only = {}, ARGV[5]
if only ~= '' then
  if redis.call('HGET', specs, only) then names[1] = only end
else
  for _, field in ipairs(redis.call('HKEYS', specs)) do
    if string.sub(field, -1) ~= '#' and precedes(after, field) then names[#names + 1] = field end
  end
  table.sort(names, not is_bytewise and precedes or nil)
end

local function number(value)
  return value and whole(value) or false
end

local function row_of(name)
  local spec, record = spec_of(redis.call('HGET', specs, name)), record_of(specs, name)
  local score = redis.call('ZSCORE', schedules, name)
  local bytes, fields = spec and spec.bytes or 0, false
  if payloads and bytes > 0 then
    fields = job_of(redis.call('HGET', specs, name .. '##'))
    if not fields then spec = nil end
  end
  spec = spec or {}
  return {name, score, score and whole(time_of(score)), spec.digest or false, spec.kind or false,
    spec.about or false, number(record.since), number(record.fired), number(record.missed),
    number(record.runs), number(record.last), record.last_entry or false, number(record.paused),
    number(spec.digest and record.declared[spec.digest]), bytes, fields or false,
    number(record.skipped)}, bytes
end

local version = tonumber(redis.call('HGET', specs, '#') or '') or 0
local answer, read = {whole(now()), whole(version), 0}, 0
for i, name in ipairs(names) do
  if i > limit or read >= bytes_max then
    answer[3] = 1
    break
  end
  local row, bytes = row_of(name)
  answer[#answer + 1] = row
  if payloads then read = read + bytes end
end
return answer
