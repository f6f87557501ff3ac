-- Removes the mark of work that failed.
--
-- KEYS: mark. ARGV: owner.
-- Returns: 1 removed, 0 the work is done, the mark is another owner's, or there is no mark.
--
-- Before: there may be a mark or not, of any owner.
-- After: if the mark was this owner's and the work is not done, the mark is gone. Otherwise nothing
-- has changed.
-- May race with: other callers that begin or finish; their marks stay.
local key, owner = KEYS[1], ARGV[1]
if redis.call('HGET', key, 'owner') ~= owner then return 0 end
redis.call('HDEL', key, 'owner', 'origin', 'until')
return 1
