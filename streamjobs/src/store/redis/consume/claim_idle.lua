-- Claims entries that have been idle for too long, from one page of the pending list.
--
-- KEYS: stream or lane, dead letters, group hash. ARGV: group, consumer, source, the caller's lease in
-- milliseconds, cursor (the last id of the page before, or 0-0), entries to claim at most, rows to read at most, the
-- server's clock as the caller expects it in milliseconds or nothing, by how much that may be off,
-- and the ids that are not to be claimed.
-- Returns: "skew" and the clock; or "page", the cursor (0-0 at the end of the list), the claimed
-- entries as id, fields and delivery count, the number of dead letters stored, the number of idle
-- entries that were left because no dead letter can be stored for them, and how many of the claimed
-- ones had been released.
--
-- Before: any entry may be pending for any consumer.
-- After: the entries of the page that were idle for their owner's lease are this consumer's, counted
-- as one more delivery. The caller's lease is for owners that do not say theirs. Those whose payload is trimmed are no longer pending, and dead letters are stored
-- for them; where none can be stored, they stay. If the clock is not where the caller expects it,
-- nothing has changed: a request that waited in a buffer, or a clock that was set, would take
-- entries from live consumers.
-- May race with: renewals and other claims. The first to run resets the idle time.
--
-- XAUTOCLAIM is not used: it removes ids without payload from the pending list even when their
-- owner is alive, it returns no delivery counts, and its scan cannot be bounded apart from its
-- claims. Newer servers show a released entry with an idle time of -1. Delivery counts past the
-- whole numbers that Lua can hold are set by other clients for entries without hope; they are set
-- to the highest that can be held, so that the count and the record agree.
local key, dead, hash = KEYS[1], KEYS[2], KEYS[3]
local group, me, source, lease, cursor = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local limit, rows_max, expected, tolerance = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8], ARGV[9]
local COUNT_MAX = 9007199254740991

if expected ~= '' then
  local clock = now()
  if math.abs(clock - tonumber(expected)) > tonumber(tolerance) then return {'skew', clock} end
end
local can_store, lease_of = storable(dead), leases(hash, tonumber(lease), me)

-- The entry if it was claimed, else nil; and whether its payload was trimmed.
local function claim(id, owner, count)
  local claimed
  local idle = whole(lease_of(owner))
  if count < 0 or count >= COUNT_MAX then
    count = COUNT_MAX - 1
    claimed = redis.call('XCLAIM', key, group, me, idle, id, 'RETRYCOUNT', whole(COUNT_MAX))
  else
    claimed = redis.call('XCLAIM', key, group, me, idle, id)
  end
  if claimed[1] then return {id, claimed[1][2], whole(count + 1)}, false end
  if redis.call('XPENDING', key, group, id, id, 1)[1] then return nil, false end
  store_trimmed(dead, source, id, whole(count), owner)
  return nil, true
end

local skipped = {}
for i = 10, #ARGV do skipped[ARGV[i]] = true end

local from = cursor == '0-0' and '-' or '(' .. cursor
local rows = redis.call('XPENDING', key, group, from, '+', rows_max)
local entries, trimmed, seen, left, released = {}, 0, 0, 0, 0
local emptied = {}
for _, row in ipairs(rows) do
  if #entries + trimmed >= limit then break end
  seen = seen + 1
  if not skipped[row[1]] and (row[3] < 0 or row[3] >= lease_of(row[2])) then
    if claimable(key, can_store, row[1]) then
      local entry, gone = claim(row[1], row[2], row[4])
      if entry then
        entries[#entries + 1] = entry
        if released_for(row[2]) then
          released = released + 1
          emptied[row[2]] = true
        end
      end
      if gone then trimmed = trimmed + 1 end
    else
      left = left + 1
    end
  end
end
for owner in pairs(emptied) do
  if not redis.call('XPENDING', key, group, '-', '+', 1, owner)[1] then
    -- Not worth the answer: the claims are made, and an empty consumer may stay.
    redis.pcall('XGROUP', 'DELCONSUMER', key, group, owner)
  end
end
local ended = seen == #rows and #rows < rows_max
local at = ended and '0-0' or (seen > 0 and rows[seen][1] or cursor)
return {'page', at, entries, trimmed, left, released}
