-- Functions that the scripts of holds share.
--
-- A hold is a job's place in a limit. Its field in the hash of holds is where the job is: "s:" and the id
-- of its entry on the stream, or "l:" and that of its entry in the lane; a job that waits for its retry is
-- still named by the entry that failed. Its value is the key that the limit counts, and `busy` says how many
-- holds each key has. Jobs beyond the limit wait in lines: a member of `lines` and a record of the same
-- name for each, and for each key the length of its line in `turns`. The record '#' is the number of the
-- last member, and '#bytes' how much the records have.

-- What a limit counts together where it counts all jobs of the group.
local ALL = '*'
-- Longer keys are counted by their digest.
local KEY_BYTES_MAX = 128

-- The key that a limit counts for an entry; nil for an entry without one, which no limit counts.
local function counted_key(scope, fields)
  if scope == 'group' then return ALL end
  local key = value_of(fields, 'sj-key')
  if not key or key == '' then return nil end
  return #key > KEY_BYTES_MAX and 'sha1:' .. redis.sha1hex(key) or key
end

-- In a sorted set with equal scores, the members of a key's line are together, in order.
local function line_prefix(key)
  return whole(#key) .. ':' .. key .. ':'
end

local function change_busy(busy, key, by)
  if redis.call('HINCRBY', busy, key, by) <= 0 then redis.call('HDEL', busy, key) end
end

-- Which keys have a type that these scripts cannot use, said before anything is changed. The first is a
-- removal of nothing: after it, a server out of memory accepts what follows.
local function check_types(holds, busy, lines, records, turns)
  redis.call('HDEL', holds, '')
  redis.call('HLEN', busy)
  redis.call('ZCARD', lines)
  redis.call('HLEN', records)
  redis.call('ZCARD', turns)
end

-- Moves jobs of a key from its line to the lane, as long as the key is below the limit: how many. With
-- no limit they get no hold. At most `most` are moved. A job whose record cannot be read any more is stored
-- as a dead letter, like one whose payload was trimmed.
local function feed(keys, key, limit, most)
  local fed, prefix = 0, line_prefix(key)
  while fed < most do
    local has = limit and tonumber(redis.call('HGET', keys.busy, key) or '') or 0
    if limit and has >= limit then break end
    local range = {'[' .. prefix, '[' .. prefix .. '\255'}
    local member = redis.call('ZRANGEBYLEX', keys.lines, range[1], range[2], 'LIMIT', 0, 1)[1]
    if not member then
      redis.call('ZREM', keys.turns, key)
      break
    end
    local record = redis.call('HGET', keys.records, member)
    local job = job_of(record)
    if job then
      local id = redis.call('XADD', keys.lane, '*', unpack(job))
      if limit then
        redis.call('HSET', keys.holds, 'l:' .. id, key)
        change_busy(keys.busy, key, 1)
      end
      fed = fed + 1
    elseif storable(keys.dead) then
      store_trimmed(keys.dead, 'stream', '0-0', '0', '')
    else
      break
    end
    redis.call('ZREM', keys.lines, member)
    redis.call('HDEL', keys.records, member)
    if record then redis.call('HINCRBY', keys.records, '#bytes', -#record) end
    if tonumber(redis.call('ZINCRBY', keys.turns, -1, key)) <= 0 then
      redis.call('ZREM', keys.turns, key)
    end
  end
  if redis.call('ZCARD', keys.lines) == 0 then redis.call('DEL', keys.records) end
  return fed
end

-- Ends the hold of a place: its key, or nil if it has none.
local function free_hold(keys, place)
  local key = redis.call('HGET', keys.holds, place)
  if not key then return nil end
  redis.call('HDEL', keys.holds, place)
  change_busy(keys.busy, key, -1)
  return key
end
