-- Puts a job from an archive back into the lane.
--
-- KEYS: stream, lane, token, marks of cancelled jobs. ARGV: group, how long the token is kept in milliseconds, then the
-- names and values of the job's fields.
-- Returns: the id in the lane, or nil if a job was put back under this token before.
--
-- Before: the group exists on the stream, else the script is refused.
-- After: the job is in the lane, which has the group, no mark from before cancels it, and the token is stored. With a
-- token that was used before, or with a refusal, nothing has changed.
-- May race with: other callers with the same token, of which one puts the job back. A repeat after
-- a lost answer finds the token.
--
-- The token is checked first, so that a repeat gets its answer even if the group is gone by now.
-- The job is appended before the token is stored, because a server out of memory refuses the first write.
local stream, lane, token = KEYS[1], KEYS[2], KEYS[3]
local group, keep = ARGV[1], ARGV[2]
if redis.call('GET', token) then return false end
redis.call('XPENDING', stream, group)
ensure_group(lane, group, '0-0')
local job = append_redriven(lane, KEYS[4], {unpack(ARGV, 3)})
redis.call('SET', token, job, 'PX', keep)
return job
