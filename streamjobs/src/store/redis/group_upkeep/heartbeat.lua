-- Records that a consumer is alive, how far the group is done, and how many entries it will never get.
--
-- KEYS: stream, group hash. ARGV: group, consumer, the consumer's heartbeat.
-- Returns: the floor, how many entries were trimmed before they were delivered, each counted once, and
-- how often operators have moved entries.
--
-- Before: the group exists, else the script is refused.
-- After: the consumer's heartbeat has the time of the server's clock. Each event type that it
-- declares is kept in `type:<event type>` with the time until which the consumer counts as alive, and
-- `type:*` stands for all types: for a handler that takes all, and for a list that was cut. The floor is
-- the id before the lowest pending entry, or else the id of the last delivered one: a group that is
-- recreated there misses nothing.
-- May race with: anything. It changes only the hash, and the group's own count of the entries that
-- it has read.
--
-- All entries that were added and are gone were before the first entry. Wherever the cursor is, removed entries that
-- are not counted as read were never delivered to the group. The count of read entries is then corrected, so that each
-- loss is reported once. This also corrects the lag, which older servers never do after such a trim. Entries deleted
-- one by one in front of the cursor are included. On a server that does not keep the count in a failover, the count is
-- known to be right only while the data set is the same as at the last heartbeat; otherwise it is discarded, and the
-- server estimates it anew. When the group reads on, such an estimate hides every loss that was not reported by then,
-- so a consumer sends a heartbeat before it begins to read.
local stream, hash = KEYS[1], KEYS[2]
local name, consumer, about = ARGV[1], ARGV[2], ARGV[3]
local summary = redis.call('XPENDING', stream, name)
-- A removal of nothing: after it, a server out of memory accepts what follows, and a process that lives does not
-- seem dead.
redis.call('HDEL', hash, '')
local groups = redis.call('XINFO', 'GROUPS', stream)
local group = named(groups, name)
local cursor, read = group['last-delivered-id'], group['entries-read']

local writes = {}
if not keeps_counts() then
  local present = data_set()
  if not present then
    read = false
  elseif redis.call('HGET', hash, 'data-set') ~= present then
    if not redis.pcall('XGROUP', 'SETID', stream, name, cursor).err then
      writes = {'data-set', present}
    end
    read = false
  end
end

local gone, lost = 0, 0
if read then
  local length = redis.call('XLEN', stream)
  gone = added_to(stream, length, groups) - length
end
if read and gone > read then
  -- If the count cannot be corrected, nothing is reported: it would be reported again and again.
  local moved = redis.pcall('XGROUP', 'SETID', stream, name, cursor, 'ENTRIESREAD', gone)
  if not moved.err then
    lost = gone - read
    redis.call('HINCRBY', hash, 'trimmed-unread', lost)
  end
end

local floor = summary[1] > 0 and preceding(summary[2]) or cursor
local clock = now()
local readable, said = pcall(cjson.decode, about)
said = readable and type(said) == 'table' and said or {}
local types = type(said['types']) == 'table' and said['types'] or {}
local valid = whole(clock + valid_for(said['beat_every']))
local function write(field, value)
  writes[#writes + 1] = field
  writes[#writes + 1] = value
end
local function declare(event_type) write('type:' .. event_type, valid) end
write('floor', floor)
write('beat:' .. consumer, whole(clock))
write('about:' .. consumer, about)
for i = 1, math.min(#types, 200) do
  if type(types[i]) == 'string' then declare(types[i]) end
end
if said['types_cut'] == true then declare('*') end
redis.call('HSET', hash, unpack(writes))
return {floor, lost, redis.call('HGET', hash, 'moved') or '0'}
