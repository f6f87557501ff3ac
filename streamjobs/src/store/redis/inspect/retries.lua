-- Reads jobs that wait for retry, in the order in which they are due.
--
-- KEYS: stream, retry set, retry records. ARGV: group, the member after which to continue or
-- nothing, jobs at most, bytes of their records to read at most, the due time at which to begin if
-- there is no such member, or nothing to begin with the first.
-- Returns: the clock, 1 if there may be more or else 0, then for each job its member, its due time,
-- event type, event id, failures, published entry and last error, each as text or nil.
--
-- Before: the group exists, else the script is refused.
-- May race with: anything; it changes nothing. If the member after which to continue is gone, the
-- list begins with the first job of its due time: a job can be seen twice, but none is missed.
--
-- Payloads stay on the server. A member without a readable record is listed by name and due time
-- only.
local retry, records = KEYS[2], KEYS[3]
local after, most, bytes_most = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local SHOWN = {'type', 'sj-id', 'sj-attempt', 'sj-origin', 'sj-error'}
redis.call('XPENDING', KEYS[1], ARGV[1])
local from = 0
local rank = after ~= '' and redis.call('ZRANK', retry, after)
if rank then
  from = rank + 1
elseif ARGV[5] ~= '' then
  local first = redis.call('ZRANGE', retry, ARGV[5], '+inf', 'BYSCORE', 'LIMIT', 0, 1)[1]
  from = first and redis.call('ZRANK', retry, first) or redis.call('ZCARD', retry)
end
local page = redis.call('ZRANGE', retry, from, from + most - 1, 'WITHSCORES')
local answer = {now(), #page == 2 * most and 1 or 0}
local bytes = 0
for i = 1, #page, 2 do
  local record = redis.call('HGET', records, page[i])
  local fields = fields_of(job_of(record) or {})
  local row = {page[i], whole(time_of(page[i + 1]))}
  for place, name in ipairs(SHOWN) do row[place + 2] = fields[name] or false end
  answer[#answer + 1] = row
  bytes = bytes + #(record or '')
  if bytes >= bytes_most and i + 1 < #page then
    answer[2] = 1
    break
  end
end
return answer
