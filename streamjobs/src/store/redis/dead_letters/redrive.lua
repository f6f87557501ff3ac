-- Puts a dead letter's job into the lane.
--
-- KEYS: stream, lane, dead letters, marks of cancelled jobs. ARGV: group, the letter's id, then the names and values of the job's
-- fields.
-- Returns: the id in the lane, or nil if there is no such letter.
--
-- Before: the letter may exist or not. If it does, the group exists on the stream, else the script is refused: nothing
-- would show the job or run it.
-- After: if it existed, its job is in the lane, and then the letter is deleted. The lane has the group. No mark from
-- before the redrive cancels the job.
-- May race with: other redrives and purges; the first to run finds the letter, so a job is put into
-- the lane once.
local stream, lane, dead = KEYS[1], KEYS[2], KEYS[3]
local group, id = ARGV[1], ARGV[2]
if not has_entry(dead, id) then return false end
redis.call('XPENDING', stream, group)
ensure_group(lane, group, '0-0')
local job = append_redriven(lane, KEYS[4], {unpack(ARGV, 3)})
redis.call('XDEL', dead, id)
return job
