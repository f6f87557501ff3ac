-- Reads events that wait, in the order in which they are due.
--
-- KEYS: waiting events, their records. ARGV: the event after which to continue or nothing, events at
-- most, bytes of their records to read at most, the due time at which to begin if there is no such event, or
-- nothing to begin with the first.
-- Returns: the clock, 1 if there may be more or else 0, then for each event the name under which it waits, its
-- due time, event type, key, the bytes of its record, and its event id; type, key and event id as text or nil.
--
-- May race with: anything; it changes nothing. If the event after which to continue is gone, the list begins
-- with the first event of its due time: an event can be seen twice, but none is missed.
--
-- Payloads stay on the server. A member without a readable record is listed by name and due time only.
local later, records = KEYS[1], KEYS[2]
local after, most, bytes_most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local from = 0
local rank = after ~= '' and redis.call('ZRANK', later, after)
if rank then
  from = rank + 1
elseif ARGV[4] ~= '' then
  local first = redis.call('ZRANGE', later, ARGV[4], '+inf', 'BYSCORE', 'LIMIT', 0, 1)[1]
  from = first and redis.call('ZRANK', later, first) or redis.call('ZCARD', later)
end
local page = redis.call('ZRANGE', later, from, from + most - 1, 'WITHSCORES')
local answer = {now(), #page == 2 * most and 1 or 0}
local bytes = 0
for i = 1, #page, 2 do
  local record = redis.call('HGET', records, page[i])
  local fields = fields_of(job_of(record) or {})
  local due = whole(time_of(page[i + 1]))
  answer[#answer + 1] = {page[i], due, fields['type'] or false, fields['sj-key'] or false,
    #(record or ''), fields['sj-id'] or false}
  bytes = bytes + #(record or '')
  if bytes >= bytes_most and i + 1 < #page then
    answer[2] = 1
    break
  end
end
return answer
