-- Reads which schedules of a stream are due.
--
-- KEYS: stream, schedules, their definitions. ARGV: how many of the due ones to leave out, and how many to
-- return at most.
-- Returns: the clock, the number that changes with each definition, schedules that have a next time, 1 if there are
-- schedules or else 0, 1 if more may be due or else 0, when the first schedule that is not due yet becomes due (-1 for
-- none), then for each due schedule its name, its score as the server prints it, and the score in whole milliseconds.
--
-- May race with: anything; it changes nothing.
local schedules, specs = KEYS[2], KEYS[3]
local skip, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local clock = now()
local at = whole(clock)
local due = redis.call('ZRANGEBYSCORE', schedules, '-inf', at, 'WITHSCORES', 'LIMIT', skip, limit)
local coming = redis.call('ZRANGEBYSCORE', schedules, '(' .. at, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
local version = tonumber(redis.call('HGET', specs, '#') or '') or 0
local count = redis.call('ZCARD', schedules)
local used = (count > 0 or redis.call('HLEN', specs) > 0) and 1 or 0
local answer = {at, whole(version), count, used, #due == 2 * limit and 1 or 0,
  coming[2] and whole(time_of(coming[2])) or -1}
for i = 1, #due, 2 do
  answer[#answer + 1] = due[i]
  answer[#answer + 1] = due[i + 1]
  answer[#answer + 1] = whole(time_of(due[i + 1]))
end
return answer
