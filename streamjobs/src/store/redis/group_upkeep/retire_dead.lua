-- Removes consumers that have sent no heartbeat for too long and have nothing pending.
--
-- KEYS: stream, lane, group hash. ARGV: group, heartbeat timeout in milliseconds, consumers at
-- most.
-- Returns: how many were removed.
--
-- Before: consumers may belong to any client, even to software that sends no heartbeats.
-- After: those whose last heartbeat is older than the timeout, and older than three of the intervals that
-- they announced, and that have nothing pending on either stream are gone, with their heartbeats. A consumer without a heartbeat has been given one:
-- it is removed only after a whole timeout. Old heartbeats of consumers that are on neither stream
-- are gone, and so are event types that were neither declared nor met without a handler for three
-- days.
-- May race with: claims, which only take entries away from consumers, and with the consumer itself:
-- its next read creates it again, and nothing is lost.
local hash, group = KEYS[3], ARGV[1]
local timeout, limit = tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = now()
-- A removal of nothing: after it, a server out of memory accepts what follows.
redis.call('HDEL', hash, '')

local consumers, streams_of = {}, {}
for i = 1, 2 do
  if pending_of(KEYS[i], group) then
    for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[i], group)) do
      local fields = fields_of(info)
      local name = fields['name']
      consumers[name] = (consumers[name] or 0) + fields['pending']
      streams_of[name] = streams_of[name] or {}
      table.insert(streams_of[name], KEYS[i])
    end
  end
end
local heartbeats = fields_of(redis.call('HGETALL', hash))

-- A process with a longer lease sends heartbeats more rarely than the caller.
local function is_silent(name, heartbeat)
  local age = clock - heartbeat
  return age > timeout and age > gone_after(hash, name, timeout)
end

local removed, steps = 0, 0
for name, pending in pairs(consumers) do
  local heartbeat = tonumber(heartbeats['beat:' .. name] or '')
  if steps >= limit then break end
  if released_for(name) then
    -- The owner of released entries is no consumer: it gets no heartbeat, which would make it seem
    -- alive.
    heartbeat = pending == 0 and 0 or clock
  end
  if not heartbeat then
    redis.call('HSET', hash, 'beat:' .. name, whole(clock))
    steps = steps + 1
  elseif pending == 0 and is_silent(name, heartbeat) then
    for _, key in ipairs(streams_of[name]) do
      redis.call('XGROUP', 'DELCONSUMER', key, group, name)
    end
    redis.call('HDEL', hash, 'beat:' .. name, 'about:' .. name)
    removed, steps = removed + 1, steps + 1
  end
end
local DAYS = 3 * 24 * 3600 * 1000
for field, heartbeat in pairs(heartbeats) do
  local name = string.match(field, '^beat:(.*)$')
  if steps >= limit then break end
  local last = string.match(field, '^type:') and heartbeat
    or string.match(field, '^unhandled:') and string.match(heartbeat, ' (%d+)$')
  if last and clock - (tonumber(last) or 0) > DAYS then
    redis.call('HDEL', hash, field)
    steps = steps + 1
  end
  if name and not consumers[name] and is_silent(name, tonumber(heartbeat) or 0) then
    redis.call('HDEL', hash, field, 'about:' .. name)
    steps = steps + 1
  end
end
return removed
