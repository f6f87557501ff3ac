-- Schedules an event in place of a waiting event of the same name.
--
-- KEYS: waiting events, their records. ARGV: name; event id; delay and longest wait in milliseconds; 1 to keep the
-- due time of an event that waits, or else 0; then the names and values of the event's fields.
-- Returns: {due time, event id that was replaced or nil, 1 if this event waited before or else 0}.
--
-- Before: an event of this name waits or not.
-- After: this event waits under the name, and no other one. It is due after the delay, but at the latest when the
-- longest wait has passed since the first event that was replaced. The field `sj-debounced` of its record has the time
-- of that event. If this event waited before, nothing has changed.
-- May race with: calls that enter or cancel events; if such a call runs first, the waiting event is gone and this one
-- waits as a new one. Other events of the name, of which the last to run waits. A repetition finds its event waiting;
-- after the event was replaced or has entered, a repetition waits as another event.
--
-- The record is the first write: a server out of memory refuses it, and the waiting event stays as it was. If the
-- member is refused, the record is restored.
local later, records = KEYS[1], KEYS[2]
local name, id, delay, wait_max = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local keeps_time = ARGV[5] == '1'
-- A key of another type refuses the call before anything is written.
redis.call('ZCARD', later)
local clock = now()
local used_since = tonumber(redis.call('HGET', records, '') or '') or clock
local record = redis.call('HGET', records, name)
local waiting = job_of(record)
local due_before = due_of(waiting)
local replaced = due_before and fields_of(waiting) or {}
if due_before and replaced['sj-id'] == id then return {whole(due_before), false, 1} end
-- The clock may have been set back, and another client may have written the record.
local first = math.min(tonumber(string.match(replaced['sj-debounced'] or '', '^%d+$')) or clock, clock)
local due = math.min(clock + delay, first + wait_max)
if due_before and keeps_time then due = due_before end

local job = {}
for i = 6, #ARGV do job[#job + 1] = ARGV[i] end
for _, word in ipairs({'sj-debounced', whole(first), 'sj-due', whole(due)}) do job[#job + 1] = word end
redis.call('HSET', records, '', whole(math.min(used_since, clock)), name, cmsgpack.pack(job))
local placed = redis.pcall('ZADD', later, whole(due), name)
if type(placed) == 'table' then
  if record then redis.call('HSET', records, name, record) else redis.call('HDEL', records, name) end
  return placed
end
return {whole(due), replaced['sj-id'] or false, 0}
