-- Reads the past attempts that a job carries.
--
-- KEYS: retry records, lane or dead letters. ARGV: "record" or "entry", the member or the id, bytes to
-- return at most of each text.
-- Returns: the lines that the job carries, and the line that its dead letter adds; each as text or
-- nil.
--
-- Before: the job may be there or not.
-- May race with: anything; it changes nothing.
--
-- Payloads stay on the server. The last attempts are at the end of the text.
local key, kind, name, most = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local job
if kind == 'record' then
  job = job_of(redis.call('HGET', key, name))
else
  local entry = redis.call('XRANGE', key, name, name, 'COUNT', 1)[1]
  job = entry and entry[2]
end
local function text(field)
  local value = job and value_of(job, field)
  return value and string.sub(value, -most) or false
end
return {text('sj-history'), text('sj-dead-attempt')}
