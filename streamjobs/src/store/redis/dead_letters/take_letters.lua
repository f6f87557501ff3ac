-- Takes dead letters for an archive.
--
-- KEYS: dead letters, group hash. ARGV: the archive's group, consumer, lease in milliseconds,
-- letters at most, how long after its last heartbeat a consumer counts as alive at least, how long a letter
-- for a trimmed payload is left while its consumer is alive, how long an idle taker is kept, all in
-- milliseconds.
-- Returns: the letters as id and fields; how many were taken before, not settled, and are gone; and
-- 1 if there may be more to take now.
--
-- Before: there may be no letters, and no takers.
-- After: the letters in the answer are pending for this taker. So are the letters that are withheld
-- for now, which are taken again after the lease. Letters that are gone are no longer pending. If
-- there was nothing to take, idle takers that have nothing pending are removed. Without letters,
-- nothing is created.
-- May race with: other takers, of which one gets a letter; and redrives, purges and trims, which
-- treat a taken letter like any other. Letters of a lost answer are taken again after the lease.
--
-- A letter for a trimmed payload is deleted when the job that it stands for succeeds, and replaced
-- by the job's next form when it fails. So an archive that has stored it by then would show a loss
-- that never happened, and the job would not be tried again. The first write is a no-op removal, as
-- in a promotion, so that a server out of memory accepts the script: such a server needs its
-- letters to be taken away.
local dead, hash = KEYS[1], KEYS[2]
local group, me, lease, limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local alive, withheld, kept = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local clock = now()

if redis.call('XLEN', dead) == 0 and not pending_of(dead, group) then return {{}, 0, 0} end
redis.call('XDEL', dead, '0-0')
ensure_group(dead, group, '0-0')

local function may_be_replaced(letter)
  local fields = fields_of(letter[2])
  if fields['sj-dead-reason'] ~= 'trimmed' then return false end
  if clock - tonumber((parts(letter[1]))) > withheld then return false end
  local consumer = fields['sj-dead-consumer'] or ''
  local heartbeat = redis.call('HGET', hash, 'beat:' .. consumer)
  return heartbeat and clock - (tonumber(heartbeat) or 0) <= gone_after(hash, consumer, alive)
end

local letters, gone, left = {}, 0, 0
local function take(letter)
  if may_be_replaced(letter) then left = left + 1 else letters[#letters + 1] = letter end
end

local late = redis.call('XPENDING', dead, group, 'IDLE', lease, '-', '+', limit)
for _, row in ipairs(late) do
  local claimed = redis.call('XCLAIM', dead, group, me, 0, row[1])[1]
  if claimed then take(claimed) else gone = gone + 1 end
end
-- Letters that are withheld are taken again later: they are no reason to call again at once.
local more = #late == limit and left < limit
if #letters < limit then
  local asked = limit - #letters
  local fresh = redis.call('XREADGROUP', 'GROUP', group, me, 'COUNT', asked,
    'STREAMS', dead, '>')
  if fresh then
    for _, letter in ipairs(fresh[1][2]) do take(letter) end
    more = more or #fresh[1][2] == asked
  end
end
if #letters + gone + left == 0 then
  for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', dead, group)) do
    local fields = fields_of(info)
    if fields['name'] ~= me and fields['pending'] == 0 and fields['idle'] > kept then
      redis.call('XGROUP', 'DELCONSUMER', dead, group, fields['name'])
    end
  end
end
return {letters, gone, more and 1 or 0}
