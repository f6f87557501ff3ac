-- Shortens a stream to about its window of history.
--
-- KEYS: stream. ARGV: entries to keep, entries to remove at most.
-- Answers: how many went.
--
-- Before: the stream may be there or not.
-- After: whole nodes from its old end are gone, as far as at least that many entries remain and no
-- group needs any of them. A group needs everything from its lowest pending entry on, or from the
-- entry after the last one delivered. A stream without groups is bound by its window alone.
-- May race with: appends, reads and acknowledgements, which only let more go the next time.
--
-- Both bounds hold because the server removes a node only if all of it stands before the lowest
-- needed id, and only if its entries fit into what LIMIT has left.
local stream, keep, most = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local excess = math.min(redis.call('XLEN', stream) - keep, most)
if excess <= 0 then return 0 end
local needed = SEQUENCE_MAX .. '-' .. SEQUENCE_MAX
for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local fields = fields_of(info)
  local from = following(fields['last-delivered-id'])
  if fields['pending'] > 0 then from = redis.call('XPENDING', stream, fields['name'])[2] end
  if precedes(from, needed) then needed = from end
end
return redis.call('XTRIM', stream, 'MINID', '~', needed, 'LIMIT', excess)
