-- Trims a stream.
--
-- KEYS: stream. ARGV: "length", "age" or "before"; the number of entries to keep, the age in
-- milliseconds, or an id; "exact" or "about"; "keep" or "lose"; entries to remove at most, and
-- entries to read at most; "apply" or "check".
-- Returns: how many were removed, how many stayed, the group that limited the cut or nil, the first
-- id that it needs or nil, and 1 if there is more to remove. With "check" nothing is changed: the
-- script counts what an exact trim would remove, up to the number of entries to read and up to 4
-- MiB.
--
-- Before: the stream may exist or not.
-- After: entries are gone from its old end. With "keep" no group needs any of them; a group needs
-- everything from its lowest pending entry on, or from the entry after the last one delivered.
-- "About" removes whole nodes of the server, and never more entries than asked for.
-- May race with: appends, reads and acknowledgements; after them, the next trim can only remove
-- more.
--
-- With "about", both bounds hold because the server removes a node only if all of its entries are
-- before the id, and only if they fit into the rest of LIMIT.
local stream, cut, bound = KEYS[1], ARGV[1], ARGV[2]
local exact, lose = ARGV[3] == 'exact', ARGV[4] == 'lose'
local most, reads_most = tonumber(ARGV[5]), tonumber(ARGV[6])
local HIGHEST = SEQUENCE_MAX .. '-' .. SEQUENCE_MAX
local NODE = 100
-- More entries than a node has on a server with usual settings. A trim that removed as many entries
-- as its limit, or at most this many fewer, may have stopped at the limit.
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

-- Whether a group needs an entry before an id. The first id that it needs may have no entry yet.
local function needs_before(id)
  return precedes(needed, id) and #redis.call('XRANGE', stream, needed, '(' .. id, 'COUNT', 1) > 0
end

-- The id of the first entry that stays when this many of the oldest are removed.
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

if ARGV[7] == 'check' then
  local count, bytes, from, limited = 0, 0, '-', false
  local excess, to = HIGHEST, HIGHEST
  if cut == 'length' then excess = math.max(length - tonumber(bound), 0)
  elseif cut == 'age' then to = whole(math.max(now() - tonumber(bound), 0)) .. '-0'
  else to = bound end
  local function goes(id)
    return (cut ~= 'length' or count < excess) and precedes(id, to)
  end
  local ended = false
  while not ended and count < reads_most and bytes < 4194304 do
    local page = redis.call('XRANGE', stream, from, '+', 'COUNT', 10)
    ended = #page < 10
    for _, entry in ipairs(page) do
      limited = goes(entry[1]) and not precedes(entry[1], needed)
      if limited or not goes(entry[1]) then
        ended = true
        break
      end
      count, from = count + 1, following(entry[1])
      for _, part in ipairs(entry[2]) do bytes = bytes + #part end
    end
  end
  return {count, length - count, limited and holder or false, limited and needed or false,
    ended and 0 or 1}
end

local removed, more, limited = 0, false, false
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
    local step = math.min(excess, reads_most)
    local stays = after_oldest(step)
    limited = needs_before(stays)
    removed = redis.call('XTRIM', stream, 'MINID', '=', limited and needed or stays)
    more = not limited and step < excess
  elseif excess > 0 then
    local step = math.min(excess, most)
    removed = redis.call('XTRIM', stream, 'MINID', '~', needed, 'LIMIT', step)
    -- The limit allowed at least one more node to be removed, so the node stays because a group
    -- needs it.
    limited = holder and step - removed >= NODE
    more = not limited and removed > 0 and step < excess
  end
else
  local to = bound
  if cut == 'age' then to = whole(math.max(now() - tonumber(bound), 0)) .. '-0' end
  limited = needs_before(to)
  if limited then to = needed end
  -- First whole nodes, a limited number at once. The rest of an exact cut is within one node.
  removed = redis.call('XTRIM', stream, 'MINID', '~', to, 'LIMIT', most)
  more = removed > most - NODES
  if exact and not more then
    removed = removed + redis.call('XTRIM', stream, 'MINID', '=', to)
  end
end
return {removed, length - removed, limited and holder or false, limited and needed or false,
  more and 1 or 0}
