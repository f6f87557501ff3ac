-- Publishes an event of a schedule by hand.
--
-- KEYS: stream, schedules, their definitions, their log. ARGV: "~" or "=" for a maximum length, or nothing;
-- entries to keep; about how many lines the log keeps; name; digest; then the fields of the entry.
-- Returns: {1, entry id}, or {0} if there is no such schedule or another definition.
--
-- Before: the schedule has this definition or not.
-- After: if it has, the event is in the stream. The next time of the schedule stays, and so does a pause.
-- May race with: anything. A repetition is a second event.
local stream, specs, log = KEYS[1], KEYS[3], KEYS[4]
local trimming, kept, lines, name, digest = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local spec = spec_of(redis.call('HGET', specs, name))
if not spec or spec.digest ~= digest then return {0} end
local record, job = record_of(specs, name), {}
for i = 6, #ARGV do job[#job + 1] = ARGV[i] end
local entry = redis.call('XADD', stream, unpack(entry_words(trimming, kept, job)))
record.runs = (record.runs or 0) + 1
store_record(specs, name, record)
redis.pcall('XADD', log, 'MAXLEN', '~', lines, '*', 'schedule', name, 'due', '', 'count', 1, 'missed', 0,
  'entry', entry, 'by', '')
return {1, entry}
