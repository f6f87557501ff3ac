-- Removes consumers that have been silent for too long and have nothing pending.
--
-- KEYS: stream, lane, group hash. ARGV: group, silence in milliseconds, consumers at most.
-- Answers: how many were removed.
--
-- Before: consumers may be anybody's, also of other software that never beats.
-- After: those whose last beat is older than the silence and that have nothing pending on either
-- stream are gone, with their beats. One without a beat has got one: it is removed only after a
-- whole silence. Beats of consumers that are on neither stream are gone once they are old.
-- May race with: sweeps, which only take entries away from consumers, and with the consumer itself,
-- which is made again by its next read and loses nothing.
local hash, group = KEYS[3], ARGV[1]
local silence, limit = tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = now()

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
local beats = fields_of(redis.call('HGETALL', hash))

local removed, steps = 0, 0
for name, pending in pairs(consumers) do
  local beat = tonumber(beats['beat:' .. name] or '')
  if steps >= limit then break end
  if not beat then
    redis.call('HSET', hash, 'beat:' .. name, whole(clock))
    steps = steps + 1
  elseif pending == 0 and clock - beat > silence then
    for _, key in ipairs(streams_of[name]) do
      redis.call('XGROUP', 'DELCONSUMER', key, group, name)
    end
    redis.call('HDEL', hash, 'beat:' .. name, 'about:' .. name)
    removed, steps = removed + 1, steps + 1
  end
end
for field, beat in pairs(beats) do
  local name = string.match(field, '^beat:(.*)$')
  if steps >= limit then break end
  if name and not consumers[name] and clock - (tonumber(beat) or 0) > silence then
    redis.call('HDEL', hash, field, 'about:' .. name)
    steps = steps + 1
  end
end
return removed
