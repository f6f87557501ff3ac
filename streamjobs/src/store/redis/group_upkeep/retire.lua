-- Removes a consumer that has nothing pending.
--
-- KEYS: stream, lane, group hash. ARGV: group, consumer.
-- Returns: 1 if it was removed or never there, 0 if something is pending for it.
--
-- Before: the consumer has stopped reading.
-- After: it is gone from both streams, with its heartbeat, unless anything was pending for it on
-- either. In that case nothing has changed. Removing it together with its entries would lose them.
-- May race with: claims, which only take entries away from it.
local group, consumer = ARGV[1], ARGV[2]
local there = {}
for i = 1, 2 do
  if pending_of(KEYS[i], group) then
    if redis.call('XPENDING', KEYS[i], group, '-', '+', 1, consumer)[1] then return 0 end
    there[#there + 1] = KEYS[i]
  end
end
redis.call('HDEL', KEYS[3], 'beat:' .. consumer, 'about:' .. consumer)
for _, key in ipairs(there) do redis.call('XGROUP', 'DELCONSUMER', key, group, consumer) end
return 1
