-- Shortens a stream.
--
-- KEYS: stream. ARGV: "length", "age" or "before"; the number of entries to keep, the age in
-- milliseconds, or an id; "exact" or "about"; "keep" or "lose"; entries to remove at most, and
-- entries to look at at most.
-- Answers: how many went, how many stayed, the group that held the cut up or nil, the first id that
-- it needs or nil, and 1 if there is more to remove.
--
-- Before: the stream may be there or not.
-- After: entries from its old end are gone. With "keep" none of them is needed by a group, and a
-- group needs everything from its lowest pending entry on, or from the entry after the last one
-- delivered. "About" removes whole nodes of the server's, and never more than it was asked for.
-- May race with: appends, reads and acknowledgements, which only let more go the next time.
--
-- With "about", both bounds hold because the server removes a node only if all of it stands before
-- the id, and only if its entries fit into what LIMIT has left.
local stream, cut, bound = KEYS[1], ARGV[1], ARGV[2]
local exact, lose = ARGV[3] == 'exact', ARGV[4] == 'lose'
local most, looks_most = tonumber(ARGV[5]), tonumber(ARGV[6])
local HIGHEST = SEQUENCE_MAX .. '-' .. SEQUENCE_MAX
local NODE = 100
-- Larger than the nodes of a server with usual settings: what removed more may have met its limit.
local NODES = 10 * NODE

local length = redis.call('XLEN', stream)
if length == 0 then return {0, 0, false, false, 0} end

local needed, holder = HIGHEST, false
if not lose then
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local fields = fields_of(info)
    local from = following(fields['last-delivered-id'])
    if fields['pending'] > 0 then from = redis.call('XPENDING', stream, fields['name'])[2] end
    if precedes(from, needed) then needed, holder = from, fields['name'] end
  end
end

-- Whether a group needs an entry that stands before an id. What it needs next may not be there yet.
local function needs_before(id)
  return precedes(needed, id) and #redis.call('XRANGE', stream, needed, '(' .. id, 'COUNT', 1) > 0
end

-- The id of the first entry that stays when so many of the oldest go, as far as may be looked at.
local function after_oldest(count)
  local from, seen = '-', 0
  while seen <= count do
    local page = redis.call('XRANGE', stream, from, '+', 'COUNT', math.min(50, count + 1 - seen))
    if #page == 0 then return HIGHEST end
    seen = seen + #page
    from = following(page[#page][1])
    if seen > count then return page[#page][1] end
  end
end

local removed, more, held = 0, false, false
if cut == 'length' then
  local excess = math.max(length - tonumber(bound), 0)
  if excess > 0 and lose then
    local step = math.min(excess, most)
    if exact then
      removed = redis.call('XTRIM', stream, 'MAXLEN', '=', length - step)
    else
      removed = redis.call('XTRIM', stream, 'MAXLEN', '~', length - excess, 'LIMIT', step)
    end
    more = removed > 0 and step < excess
  elseif excess > 0 and exact then
    local step = math.min(excess, looks_most)
    local stays = after_oldest(step)
    held = needs_before(stays)
    removed = redis.call('XTRIM', stream, 'MINID', '=', held and needed or stays)
    more = not held and step < excess
  elseif excess > 0 then
    local step = math.min(excess, most)
    removed = redis.call('XTRIM', stream, 'MINID', '~', needed, 'LIMIT', step)
    -- What one node cannot explain is held up by a group.
    held = holder and step - removed >= NODE
    more = not held and removed > 0 and step < excess
  end
else
  local to = bound
  if cut == 'age' then to = whole(math.max(now() - tonumber(bound), 0)) .. '-0' end
  held = needs_before(to)
  if held then to = needed end
  -- Whole nodes first, of which only so many at once; what is left of an exact cut is within one.
  removed = redis.call('XTRIM', stream, 'MINID', '~', to, 'LIMIT', most)
  more = removed > most - NODES
  if exact and not more then
    removed = removed + redis.call('XTRIM', stream, 'MINID', '=', to)
  end
end
return {removed, length - removed, held and holder or false, held and needed or false,
  more and 1 or 0}
