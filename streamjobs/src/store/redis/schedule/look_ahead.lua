-- Reads what waits in a stream.
--
-- KEYS: stream, waiting events, their records. ARGV: none.
-- Returns: the clock, events that wait, the time at which the next one is due (-1 for none), records
-- without a member, 1 if events are scheduled to the stream or else 0.
--
-- May race with: anything; it changes nothing.
local later, records = KEYS[2], KEYS[3]
local waiting = redis.call('ZCARD', later)
local field = redis.call('HEXISTS', records, '')
local first = redis.call('ZRANGE', later, 0, 0, 'WITHSCORES')
local misplaced = math.max(redis.call('HLEN', records) - field - waiting, 0)
return {now(), waiting, first[2] and whole(time_of(first[2])) or -1, misplaced,
  is_scheduled_to(field, waiting)}
