-- Claims entries that have been idle for too long, from one page of the pending list.
--
-- KEYS: stream or lane, dead letters, group hash. ARGV: group, consumer, source, the caller's lease in
-- milliseconds, cursor (the last id of the page before, or 0-0), entries to claim at most, rows to read at most, the
-- time in milliseconds that the caller expects the server's clock to show, or nothing, by how much that may be wrong,
-- and the ids that must not be claimed.
-- Returns: "skew" and the clock; or "page", the cursor (0-0 at the end of the list), the claimed
-- entries as id, fields and delivery count, packed, the number of dead letters stored, the number of idle
-- entries that were left because no dead letter can be stored for them, and how many of the claimed
-- ones had been released.
--
-- Before: any entry may be pending for any consumer.
-- After: the entries of the page that were idle for their owner's lease are this consumer's, counted
-- as one more delivery. The caller's lease is for owners whose heartbeat has none. Entries whose payload is trimmed are
-- no longer pending, and dead letters are stored for them; if none can be stored, the entries stay. If the clock does
-- not show what the caller expects, nothing has changed, because after a wait of the request in a buffer, or after the
-- clock was set, a claim would take entries from live consumers.
-- May race with: renewals and other claims. The first to run resets the idle time.
--
-- XAUTOCLAIM is not used: it removes ids without payload from the pending list even when their
-- owner is alive, it returns no delivery counts, and its scan cannot be bounded apart from its
-- claims. Newer servers show a released entry with an idle time of -1. Some clients mark hopeless entries with a
-- delivery count too large for a whole number in Lua. Such a count is set to the highest that Lua can hold, so that the
-- count and the record agree.
local key, dead, hash = KEYS[1], KEYS[2], KEYS[3]
local group, me, source, lease, cursor = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local limit, rows_max, expected, tolerance = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8], ARGV[9]
local COUNT_MAX = 9007199254740991
-- How many rows of the pending list are read at a time, at least.
local ROWS = 100

if expected ~= '' then
  local clock = now()
  if math.abs(clock - tonumber(expected)) > tonumber(tolerance) then return {'skew', clock} end
end
local can_store, lease_of = storable(dead), leases(hash, tonumber(lease), me)

-- Chooses the entries: rows are read a few at a time, until enough of them are idle.
local skipped = {}
for i = 10, #ARGV do skipped[ARGV[i]] = true end
local chosen, left, seen, last, ended = {}, 0, 0, cursor, false
while not ended and seen < rows_max and #chosen < limit do
  local from = last == '0-0' and '-' or '(' .. last
  local count = math.min(math.max(limit - #chosen, ROWS), rows_max - seen)
  local rows = redis.call('XPENDING', key, group, from, '+', count)
  ended = #rows < count
  for _, row in ipairs(rows) do
    if #chosen >= limit then
      ended = false
      break
    end
    seen, last = seen + 1, row[1]
    if not skipped[row[1]] and (row[3] < 0 or row[3] >= lease_of(row[2])) then
      if claimable(key, can_store, row[1]) then
        chosen[#chosen + 1] = row
      else
        left = left + 1
      end
    end
  end
end

-- Claims the chosen entries, in one command for all entries that had the same owner and count. Payloads are not
-- returned, because this command would search for each of them from the beginning of its node.
local batches, of = {}, {}
local function batch_of(owner, count)
  local counts = of[owner] or {}
  of[owner] = counts
  if not counts[count] then
    local known = (count < 0 or count >= COUNT_MAX) and COUNT_MAX - 1 or count
    counts[count] = {owner = owner, count = whole(known), next = whole(known + 1), ids = {}}
    batches[#batches + 1] = counts[count]
  end
  return counts[count]
end
for _, row in ipairs(chosen) do
  local batch = batch_of(row[2], row[4])
  batch.ids[#batch.ids + 1] = row[1]
end
-- The next count of each claimed entry.
local mine = {}
for _, batch in ipairs(batches) do
  local command = {'XCLAIM', key, group, me, whole(lease_of(batch.owner)), unpack(batch.ids)}
  for _, option in ipairs({'RETRYCOUNT', batch.next, 'JUSTID'}) do command[#command + 1] = option end
  batch.claimed = redis.call(unpack(command))
  for _, id in ipairs(batch.claimed) do mine[id] = batch.next end
end

-- Entries that were not claimed were trimmed, or are still pending for their owner.
local trimmed, released = 0, 0
for _, batch in ipairs(batches) do
  if #batch.claimed < #batch.ids then
    for _, id in ipairs(batch.ids) do
      if not mine[id] and not redis.call('XPENDING', key, group, id, id, 1)[1] then
        store_trimmed(dead, source, id, batch.count, batch.owner)
        trimmed = trimmed + 1
      end
    end
  end
  if released_for(batch.owner) and #batch.claimed > 0 then
    released = released + #batch.claimed
    if not redis.call('XPENDING', key, group, '-', '+', 1, batch.owner)[1] then
      -- An error here is ignored: the claims are made, and an empty consumer may stay.
      redis.pcall('XGROUP', 'DELCONSUMER', key, group, batch.owner)
    end
  end
end

-- Reads the payloads. While the claimed entries follow each other in the stream, each read asks for twice as many as
-- the one before, so that in all at most twice as many entries are read as were claimed.
local claimed, payloads, entries, ahead = {}, {}, {}, 1
for _, row in ipairs(chosen) do
  if mine[row[1]] then claimed[#claimed + 1] = row[1] end
end
for n, id in ipairs(claimed) do
  if not payloads[id] then
    local last = claimed[math.min(n + ahead - 1, #claimed)]
    local read = redis.call('XRANGE', key, id, last, 'COUNT', ahead)
    for _, entry in ipairs(read) do payloads[entry[1]] = entry[2] end
    ahead = payloads[last] and 2 * ahead or 1
  end
  entries[n] = {id, payloads[id], mine[id]}
end
return {'page', ended and '0-0' or last, cmsgpack.pack(entries), trimmed, left, released}
