-- Moves pending entries to another consumer, or releases them.
--
-- KEYS: stream or lane, dead letters, group hash. ARGV: group, source, the new consumer or nothing to
-- release them, the current consumer or nothing; with a current consumer, the id after which to continue and how many
-- entries at most; without one, ids.
-- Returns: the ids that were moved, those that are dead letters now, those that are not pending,
-- those left because no dead letter can be stored, and the last id read, or nil at the end.
--
-- Before: the group exists, else the script is refused.
-- After: a moved entry is released, for any process or for the new consumer alone, with one delivery less, which the
-- next claim counts again. It is released for the new consumer alone if that consumer sends heartbeats. A new consumer
-- that sends none, as in other software, owns the entry at once, with the delivery count that it had; so does a new
-- consumer that owns and renews the entry already. Idle times begin anew. If any entry was moved, the counts of
-- releases and of moves are one higher. The count of releases makes processes check for idle entries at once. By the
-- count of moves, the former owner of an entry that is not pending any more knows that the entry was not lost.
-- May race with: renewals and settlements of the current owner, which are refused from then on.
local key, dead, hash = KEYS[1], KEYS[2], KEYS[3]
local group, source, to, from = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local COUNT_MAX = 9007199254740991
local can_store = storable(dead)
redis.call('HLEN', hash)
redis.call('XPENDING', key, group)
local moved, trimmed, missing, left = {}, {}, {}, {}
local alive, lease_of = to ~= '' and is_alive(hash, to), leases(hash, 0)

-- The owner that an entry has from now on.
local function new_owner(owner, idle)
  if to == '' then return RELEASED end
  local runs_there = owner == to and idle < lease_of(to)
  return alive and not runs_there and RELEASED .. ':' .. to or to
end

local function move(row)
  local id, owner = row[1], row[2]
  if not claimable(key, can_store, id) then
    left[#left + 1] = id
    return
  end
  local owner_now, count = new_owner(owner, row[3]), row[4]
  if count < 0 or count >= COUNT_MAX then count = COUNT_MAX - 1 end
  if released_for(owner_now) and not released_for(owner) then count = math.max(count - 1, 0) end
  if released_for(owner) and not released_for(owner_now) then count = count + 1 end
  -- No idle time is set: to put an entry with an older time in place, newer servers walk through the pending list.
  local claimed =
    redis.call('XCLAIM', key, group, owner_now, 0, id, 'RETRYCOUNT', whole(count), 'JUSTID')
  if #claimed > 0 then
    moved[#moved + 1] = id
  else
    store_trimmed(dead, source, id, whole(row[4]), owner)
    trimmed[#trimmed + 1] = id
  end
end

local next = false
if from ~= '' then
  local after, most = ARGV[5], tonumber(ARGV[6])
  local rows = redis.call('XPENDING', key, group, following(after), '+', most, from)
  for _, row in ipairs(rows) do move(row) end
  if #rows == most then next = rows[#rows][1] end
else
  for i = 5, #ARGV do
    local row = redis.call('XPENDING', key, group, ARGV[i], ARGV[i], 1)[1]
    if row then move(row) else missing[#missing + 1] = ARGV[i] end
  end
end
if #moved > 0 then
  redis.call('HINCRBY', hash, 'released', 1)
  redis.call('HINCRBY', hash, 'moved', 1)
end
return {moved, trimmed, missing, left, next}
