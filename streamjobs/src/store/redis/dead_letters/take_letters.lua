-- Takes dead letters for somebody who stores them elsewhere.
--
-- KEYS: dead letters, group hash. ARGV: the takers' group, consumer, lease in milliseconds, letters at
-- most, how long after its last beat a consumer counts as alive, how long a letter of a loss is left
-- while its consumer is alive, how long an idle taker is kept, all in milliseconds.
-- Answers: the letters as id and fields, how many were taken before, not settled, and are gone, and 1
-- if there may be more to take now.
--
-- Before: there may be no letters, and no takers.
-- After: the letters in the answer are pending for this taker, and so are those that are left for now:
-- they come again after the lease. Letters that are gone are pending for nobody. When there was
-- nothing to take, takers are gone that have nothing pending and were idle for long. Without letters
-- nothing is made.
-- May race with: other takers; a letter goes to one of them. Redrives, purges and trims, which find a
-- taken letter as they find any. An answer that is lost is taken again after the lease.
--
-- A letter of a loss is taken back when the job that it stands for succeeds, and replaced by the job's
-- next form when it fails: whoever stored it elsewhere by then would have a loss that never was, and
-- the job would not be tried again. The empty removal is the first write on purpose, as in a
-- promotion: taking letters away is what a full server needs.
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
  local beat = redis.call('HGET', hash, 'beat:' .. (fields['sj-dead-consumer'] or ''))
  return beat and clock - (tonumber(beat) or 0) <= alive
end

local letters, gone, left = {}, 0, 0
local function hand_out(letter)
  if may_be_replaced(letter) then left = left + 1 else letters[#letters + 1] = letter end
end

local late = redis.call('XPENDING', dead, group, 'IDLE', lease, '-', '+', limit)
for _, row in ipairs(late) do
  local claimed = redis.call('XCLAIM', dead, group, me, 0, row[1])[1]
  if claimed then hand_out(claimed) else gone = gone + 1 end
end
-- Those that are left come again, however soon: they are no reason to ask again at once.
local more = #late == limit and left < limit
if #letters < limit then
  local asked = limit - #letters
  local fresh = redis.call('XREADGROUP', 'GROUP', group, me, 'COUNT', asked,
    'STREAMS', dead, '>')
  if fresh then
    for _, letter in ipairs(fresh[1][2]) do hand_out(letter) end
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
