-- Claims entries that were idle for too long: one page of the pending list.
--
-- KEYS: stream or lane, dead letters. ARGV: group, consumer, source, lease in milliseconds, cursor
-- (the last id seen, or 0-0), entries to claim at most, rows to look at at most, the server's clock
-- as the caller expects it in milliseconds or nothing, by how much that may be off, and the ids that
-- are not to be claimed.
-- Answers: "skew" and the clock, or "page", the cursor (0-0 at the end of the list), the claimed
-- entries as id, fields and delivery count, the number of dead letters, and the number of idle
-- entries that were left because no dead letter can be stored for them.
--
-- Before: any entry may be pending for anybody.
-- After: the entries of the page that were idle for the lease are this consumer's, counted as one
-- more delivery. Those whose payload is gone are pending no more, and dead letters tell of them; where
-- no dead letter can be stored, they stay. If
-- the clock is not where the caller expects it, nothing has changed: a sweep that waited in a
-- buffer, or met a moved clock, would take entries from the living.
-- May race with: renewals and other sweeps. Whoever comes first resets the idle time.
--
-- XAUTOCLAIM is not used, on purpose: it removes ids without payload from the pending list even
-- when their owner is alive, it tells no delivery counts, and its scan cannot be bounded apart
-- from its claims.
-- A released entry of newer servers has an idle time of -1. Counts past the whole numbers that Lua
-- can hold come from other software that marks an entry as hopeless; they are set to the highest
-- that can be held, so that count and record agree.
local key, dead = KEYS[1], KEYS[2]
local group, me, source, lease, cursor = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local limit, rows_max, expected, tolerance = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8], ARGV[9]
local COUNT_MAX = 9007199254740991

if expected ~= '' then
  local clock = now()
  if math.abs(clock - tonumber(expected)) > tonumber(tolerance) then return {'skew', clock} end
end
local can_store = storable(dead)

-- The entry if it was claimed; nil if it was not; and whether its payload was gone.
local function claim(id, owner, count)
  local claimed
  if count < 0 or count >= COUNT_MAX then
    count = COUNT_MAX - 1
    claimed = redis.call('XCLAIM', key, group, me, lease, id, 'RETRYCOUNT', whole(COUNT_MAX))
  else
    claimed = redis.call('XCLAIM', key, group, me, lease, id)
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
local entries, trimmed, seen, left = {}, 0, 0, 0
for _, row in ipairs(rows) do
  if #entries + trimmed >= limit then break end
  seen = seen + 1
  if not skipped[row[1]] and (row[3] < 0 or row[3] >= tonumber(lease)) then
    if claimable(key, can_store, row[1]) then
      local entry, gone = claim(row[1], row[2], row[4])
      if entry then entries[#entries + 1] = entry end
      if gone then trimmed = trimmed + 1 end
    else
      left = left + 1
    end
  end
end
local ended = seen == #rows and #rows < rows_max
local at = ended and '0-0' or (seen > 0 and rows[seen][1] or cursor)
return {'page', at, entries, trimmed, left}
