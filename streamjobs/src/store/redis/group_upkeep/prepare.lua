-- Creates the group on the stream and on the lane unless it exists.
--
-- KEYS: stream, lane, group hash. ARGV: group; where a new group begins: after an id, but not after the end
-- of the stream, or "$" for that end; in the first partition of a stream, of how many partitions the caller
-- was told, else an empty text; and the partition hash of the stream. A user may lack the right to the last
-- one, so it is not among the keys.
-- Returns: 0 found, 1 created, or 2 created although it had been there, on the stream; 1 created or 0
-- found on the lane.
--
-- Before: the group may exist or not on each of the two streams, and so may the streams.
-- After: it exists on both. Where it was created on the stream, it begins at the durable floor if
-- there is one, else where the caller says, and that position is the floor now. If the stream has
-- several partitions, a group that is created in the first one for the first time keeps in `made` when
-- that was, or 0 if the user may not run TIME, of how many partitions the caller was told, and how many
-- were stored. On the lane it begins at the beginning: what has been acknowledged there is deleted.
-- May race with: other processes that prepare or recreate; one of them creates the group.
--
-- A floor past the end of the stream belongs to a stream that is gone: nothing in the new stream has
-- been done, so the group begins at its first entry.
local stream, lane, hash = KEYS[1], KEYS[2], KEYS[3]
local group, start, told, partitions = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

-- Where the group begins, and how many entries are before that position, if it can be known. With that number, the
-- server counts the lag, and the heartbeat counts the entries that were trimmed unread.
local function beginning()
  local reply = redis.pcall('XINFO', 'STREAM', stream)
  local info = reply.err and {['last-generated-id'] = '0-0', ['entries-added'] = 0, length = 0}
    or fields_of(reply)
  local last, first = info['last-generated-id'], info['first-entry']
  local floor = redis.call('HGET', hash, 'floor')
  -- Entries that do not exist yet are not skipped.
  local from = (start == '$' or precedes(last, start)) and last or start
  if floor then from = precedes(last, floor) and '0-0' or floor end
  if not precedes(from, last) then return from, info['entries-added'] end
  if not first or precedes(from, first[1]) then
    return from, info['entries-added'] - info['length']
  end
  return from, nil
end

-- Writes down what is known of the stream's partitions when the group is created in the first one.
local function write_made()
  local stored = redis.pcall('HGET', partitions, 'count')
  stored = type(stored) == 'string' and string.match(stored, '^%d%d?%d?%d?$') or '1'
  if math.max(tonumber(told), tonumber(stored)) <= 1 then return end
  local known, time = pcall(now)
  redis.call('HSET', hash, 'made', whole(known and time or 0) .. ' ' .. told .. ' ' .. stored)
end

local made = 0
if not pending_of(stream, group) then
  local from, before = beginning()
  if before then
    redis.call('XGROUP', 'CREATE', stream, group, from, 'MKSTREAM', 'ENTRIESREAD', before)
  else
    redis.call('XGROUP', 'CREATE', stream, group, from, 'MKSTREAM')
  end
  made = redis.call('HEXISTS', hash, 'floor') == 1 and 2 or 1
  redis.call('HSET', hash, 'floor', from)
  if made == 1 and told ~= '' then write_made() end
  local present = not keeps_counts() and data_set()
  if present then redis.call('HSET', hash, 'data-set', present) end
end
return {made, ensure_group(lane, group, '0-0') and 1 or 0}
