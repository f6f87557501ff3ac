-- Checks whether an entry has been idle for too long.
--
-- KEYS: stream or lane, group hash. ARGV: group, source, the caller's lease in milliseconds, and for
-- how many milliseconds the result of another process's check stays valid.
-- Returns: -1 if there is such an entry, or else how many milliseconds ago a check found none, which is 0 if this check
-- did.
--
-- Before: the group exists, else the script is refused.
-- After: nothing has changed but the stored result of this check, if it found none.
-- May race with: anything. An entry that becomes idle after the check is found by the next one.
--
-- An entry is idle when it was not renewed for the lease of its owner; the caller's lease is for
-- owners whose heartbeat has none.
--
-- A check reads the pending list up to the first idle entry, and all of it while every owner
-- renews. If each process of a group did that, the work would grow with the square of their number,
-- because each holds a part of the list. So one result serves all processes whose lease is the same
-- or longer. A result from the future was stored before the clock was set back, and is ignored. If
-- no result can be read or written, because memory is full or the key is of another type, each
-- process checks by itself.
local key, hash = KEYS[1], KEYS[2]
local group, field, lease = ARGV[1], 'looked:' .. ARGV[2], tonumber(ARGV[3])
local clock = now()

local result = redis.pcall('HGET', hash, field)
local at, of = string.match(type(result) == 'string' and result or '', '^(%d+) (%d+)$')
if at and tonumber(of) <= lease then
  local ago = clock - tonumber(at)
  if ago >= 0 and ago < tonumber(ARGV[4]) then return ago end
end

local lease_of, longest = leases(hash, lease), lease
local owners = redis.call('XPENDING', key, group)[4] or {}
for _, owner in ipairs(owners) do longest = math.max(longest, lease_of(owner[1])) end
-- One query over all owners, and one for each owner whose lease is shorter than the longest.
local function has_idle(of, ...)
  return redis.call('XPENDING', key, group, 'IDLE', whole(of), '-', '+', 1, ...)[1]
end
if has_idle(longest) then return -1 end
for _, owner in ipairs(owners) do
  local of = lease_of(owner[1])
  if of < longest and has_idle(of, owner[1]) then return -1 end
end
redis.pcall('HSET', hash, field, whole(clock) .. ' ' .. whole(lease))
return 0
