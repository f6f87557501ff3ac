-- Pauses a group or resumes it, in every process.
--
-- KEYS: group hash. ARGV: 1 to pause, 0 to resume.
-- Answers: 1 changed, 0 it was so already.
--
-- Before: the group may be paused or not, and be there or not.
-- After: the field `paused` holds the server's clock at the moment of the pause, which a second
-- pause does not move; or it is gone. Nothing else has changed: what is held stays held.
-- May race with: promotions, which tell every process what they find here.
if ARGV[1] == '1' then return redis.call('HSETNX', KEYS[1], 'paused', whole(now())) end
return redis.call('HDEL', KEYS[1], 'paused')
