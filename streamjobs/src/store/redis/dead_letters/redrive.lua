-- Puts a dead letter's job into the lane.
--
-- KEYS: lane, dead letters. ARGV: group, the letter's id, then the names and values of the job's
-- fields.
-- Answers: the id in the lane, or nil if there is no such letter.
--
-- Before: the letter may be there or not.
-- After: if it was there, its job is in the lane, and then the letter is gone. The lane has the
-- group.
-- May race with: others that redrive or purge; whoever comes first finds the letter, so a job is
-- put into the lane once.
local lane, dead = KEYS[1], KEYS[2]
local group, id = ARGV[1], ARGV[2]
if not redis.call('XRANGE', dead, id, id, 'COUNT', 1)[1] then return false end
ensure_group(lane, group, '0-0')
local job = redis.call('XADD', lane, '*', unpack(ARGV, 3))
redis.call('XDEL', dead, id)
return job
