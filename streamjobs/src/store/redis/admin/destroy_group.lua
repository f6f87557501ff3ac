-- Removes a group with all its keys except its dead letters.
--
-- KEYS: stream, lane, retry set, retry records, group hash, then the keys of the group's limit: holds,
-- busy, lines, line records, turns, shares; its rate, its notes of finished jobs, and its trends. ARGV:
-- group, "keep" or "lose", how long after its last heartbeat a consumer counts as alive at least, in
-- milliseconds; "apply" or "check".
-- Returns: "done", or "alive" and a consumer, or "unfinished" and what is unfinished: pending entries, 1 if
-- there are entries that were never delivered, and jobs that wait for retry, in the lane or in lines. With
-- "check" nothing is changed.
--
-- Before: the group exists, else the script is refused.
-- After: group, lane, retries, floor and heartbeats are gone; or nothing has changed, because a
-- live process would recreate the group at its beginning, or because work would be lost.
-- May race with: a process that starts, which creates the group as a new one.
local stream, lane, retry, records, hash = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local group, lose, alive = ARGV[1], ARGV[2] == 'lose', tonumber(ARGV[3])
local summary = redis.call('XPENDING', stream, group)
local clock = now()
for field, heartbeat in pairs(fields_of(redis.call('HGETALL', hash))) do
  local name = string.match(field, '^beat:(.*)$')
  local age = clock - (tonumber(heartbeat) or 0)
  if name and age <= gone_after(hash, name, alive) then return {'alive', name} end
end
if not lose then
  local behind = undelivered(stream, group_of(stream, group)['last-delivered-id'])
  local lane_summary = pending_of(lane, group)
  local lane_pending = lane_summary and lane_summary[1] or 0
  local waiting = redis.call('ZCARD', retry) + redis.call('XLEN', lane) - lane_pending
    + redis.call('ZCARD', KEYS[8])
  local pending = summary[1] + lane_pending
  if pending > 0 or behind or waiting > 0 then
    return {'unfinished', pending, behind and 1 or 0, waiting}
  end
end
if ARGV[4] == 'check' then return {'done'} end
redis.call('XGROUP', 'DESTROY', stream, group)
redis.call('DEL', unpack(KEYS, 2))
return {'done'}
