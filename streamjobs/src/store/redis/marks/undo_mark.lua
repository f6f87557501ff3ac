-- Removes the mark of work that failed.
--
-- KEYS: mark. ARGV: owner.
-- Answers: 1 removed, 0 it is done, another one's, or not there.
--
-- Before: there may be a mark or not, of anybody.
-- After: if it was this owner's and the work is not done, it is gone. Otherwise nothing has changed.
-- May race with: others who begin or finish; a mark of theirs stays.
local key, owner = KEYS[1], ARGV[1]
if redis.call('HGET', key, 'owner') ~= owner then return 0 end
redis.call('HDEL', key, 'owner', 'origin', 'until')
return 1
