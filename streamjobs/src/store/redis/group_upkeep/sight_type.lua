-- Reads whether a live process of a group may have a handler for an event type, and since when none
-- has.
--
-- KEYS: group hash. ARGV: event type, when the job was first delivered, by the caller's estimate of
-- this clock in milliseconds, and after how many milliseconds without a live process that declares
-- the type its jobs become dead letters.
-- Returns: 1 if a live process declares the type or else 0, and for how many milliseconds none has.
--
-- Before: heartbeats keep in `type:<event type>` until when a live process declares the type, and in
-- `type:*` until when one may have any type.
-- After: the type has a field `unhandled:<event type>` with the times when it was met first and last. A hash that has
-- many fields gets no more, and a long type name gets none. In these cases the time counts from the job's own first
-- delivery.
-- May race with: heartbeats and other processes that meet the type. A repeat changes nothing but the
-- time when it was met last.
--
-- Versions that write no types declare none. While a process of such a version is alive, it may have the type. So when
-- the time is over, before any job becomes a dead letter, the heartbeats of these processes are examined. If one is
-- alive, they are not examined again before its heartbeat expires.
local hash, event_type = KEYS[1], ARGV[1]
local first, after = tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = now()
local declared = declared_until(hash, event_type)
if declared > clock then return {1, 0} end

local met = redis.call('HGET', hash, 'unhandled:' .. event_type) or ''
local since = tonumber(string.match(met, '^(%d+) ') or '')
if since or #event_type <= 200 and redis.call('HLEN', hash) < 4000 then
  since = since or clock
  -- A removal of nothing: after it, a server out of memory accepts what follows.
  redis.call('HDEL', hash, '')
  redis.call('HSET', hash, 'unhandled:' .. event_type, whole(since) .. ' ' .. whole(clock),
    'unhandled', whole(clock))
end
since = math.max(since or first, declared)
if clock - since >= after then
  local heartbeats, unsaid = fields_of(redis.call('HGETALL', hash)), 0
  for field, about in pairs(heartbeats) do
    local name = string.match(field, '^about:(.*)$')
    if name and not string.find(about, '"types":', 1, true) then
      local beat = tonumber(heartbeats['beat:' .. name] or '') or 0
      unsaid = math.max(unsaid, beat + valid_for(string.match(about, '"beat_every":(%d+)')))
    end
  end
  if unsaid > clock then
    redis.call('HSET', hash, 'type:*', whole(unsaid))
    return {1, 0}
  end
end
return {0, math.max(clock - since, 0)}
