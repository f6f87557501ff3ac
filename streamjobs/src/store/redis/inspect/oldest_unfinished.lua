-- Finds the oldest entry that a group may still run, by the time of its publication.
--
-- KEYS: stream, lane, retry records, line records. ARGV: group, jobs of the lane and of the records to
-- read at most, bytes of them at most.
-- Returns: its id or nil, and 1 if all jobs were read: otherwise there may be an older one.
--
-- Before: the group exists, else the script is refused.
-- May race with: anything; it changes nothing. Everything is read in one step, because a job that
-- moves between records and lane could otherwise be missed in both.
--
-- A job that was tried before, or waits in a line, has in its fields the id under which it was published. The records
-- of lines whose name begins with '#' are numbers.
local stream, lane = KEYS[1], KEYS[2]
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
local behind = undelivered(stream, group_of(stream, name)['last-delivered-id'])
if behind then found(behind) end

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

for i = 3, 4 do
  local at = '0'
  while complete do
    if is_enough() and redis.call('HLEN', KEYS[i]) > 0 then
      complete = false
      break
    end
    local page = redis.call('HSCAN', KEYS[i], at, 'COUNT', PAGE)
    for member, record in pairs(fields_of(page[2])) do
      if i == 3 or string.sub(member, 1, 1) ~= '#' then
        found_job(fields_of(job_of(record) or {}), i == 3 and string.match(member, '%d+%-%d+'))
        bytes = bytes + #record
      end
    end
    at = page[1]
    if at == '0' then break end
  end
end
return {oldest, complete and 1 or 0}
