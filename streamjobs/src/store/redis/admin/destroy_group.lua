-- Removes a group with everything beside it but its dead letters.
--
-- KEYS: stream, lane, retry set, retry records, group hash. ARGV: group, "keep" or "lose", how long
-- after its last beat a consumer counts as alive, in milliseconds.
-- Answers: "done", or "alive" and a consumer, or "unfinished" and what is: pending, 1 if entries
-- were never delivered, and jobs set aside or waiting in the lane.
--
-- Before: the group is there, else the script is refused.
-- After: group, lane, retries, floor and beats are gone; or nothing has changed, because a living
-- process would make the group again at its beginning, or because work would be lost.
-- May race with: a process that starts, which makes the group again as a new one.
local stream, lane, retry, records, hash = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local group, lose, alive = ARGV[1], ARGV[2] == 'lose', tonumber(ARGV[3])
local summary = redis.call('XPENDING', stream, group)
local clock = now()
for field, beat in pairs(fields_of(redis.call('HGETALL', hash))) do
  local name = string.match(field, '^beat:(.*)$')
  if name and clock - (tonumber(beat) or 0) <= alive then return {'alive', name} end
end
if not lose then
  local cursor
  for _, row in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local fields = fields_of(row)
    if fields['name'] == group then cursor = fields['last-delivered-id'] end
  end
  local behind = redis.call('XRANGE', stream, following(cursor), '+', 'COUNT', 1)[1]
  local undelivered = behind and precedes(cursor, behind[1])
  local lane_summary = pending_of(lane, group)
  local lane_pending = lane_summary and lane_summary[1] or 0
  local waiting = redis.call('ZCARD', retry) + redis.call('XLEN', lane) - lane_pending
  local pending = summary[1] + lane_pending
  if pending > 0 or undelivered or waiting > 0 then
    return {'unfinished', pending, undelivered and 1 or 0, waiting}
  end
end
redis.call('XGROUP', 'DESTROY', stream, group)
redis.call('DEL', lane, retry, records, hash)
return {'done'}
