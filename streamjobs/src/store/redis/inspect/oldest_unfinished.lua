-- Finds the oldest entry that a group may still run, by when it was published.
--
-- KEYS: stream, lane, retry records. ARGV: group, jobs of the lane and of the records to look at at most,
-- bytes of them at most.
-- Answers: its id or nil, and 1 if all jobs were looked at: otherwise there may be an older one.
--
-- Before: the group is there, else the script is refused.
-- May race with: anything; it changes nothing. All of it is one moment, because a job that moves between
-- records and lane could be missed on both sides.
--
-- A job that was tried before says in its fields as which entry it was published.
local stream, lane, records = KEYS[1], KEYS[2], KEYS[3]
local name, most, bytes_most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local PAGE = 10
local oldest, jobs, bytes = false, 0, 0

local function found(id)
  if not oldest or precedes(id, oldest) then oldest = id end
end

local function found_job(fields, id)
  local origin = fields['sj-origin']
  if origin and parts(origin) then id = origin end
  if id then found(id) end
  jobs = jobs + 1
end

local function is_enough()
  return jobs >= most or bytes >= bytes_most
end

local summary = redis.call('XPENDING', stream, name)
if summary[1] > 0 then found(summary[2]) end
local cursor
for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local fields = fields_of(info)
  if fields['name'] == name then cursor = fields['last-delivered-id'] end
end
local behind = redis.call('XRANGE', stream, following(cursor), '+', 'COUNT', 1)[1]
if behind and precedes(cursor, behind[1]) then found(behind[1]) end

local from, complete = '-', false
while not is_enough() do
  local page = redis.call('XRANGE', lane, from, '+', 'COUNT', PAGE)
  for _, entry in ipairs(page) do
    found_job(fields_of(entry[2]), entry[1])
    for _, part in ipairs(entry[2]) do bytes = bytes + #part end
  end
  if #page < PAGE then
    complete = true
    break
  end
  from = following(page[#page][1])
end

local at = '0'
while complete do
  if is_enough() and redis.call('HLEN', records) > 0 then
    complete = false
    break
  end
  local page = redis.call('HSCAN', records, at, 'COUNT', PAGE)
  for member, record in pairs(fields_of(page[2])) do
    local readable, fields = pcall(cmsgpack.unpack, record)
    fields = readable and type(fields) == 'table' and #fields % 2 == 0 and fields_of(fields) or {}
    found_job(fields, string.match(member, '%d+%-%d+'))
    bytes = bytes + #record
  end
  at = page[1]
  if at == '0' then break end
end
return {oldest, complete and 1 or 0}
