-- Reads what a group did.
--
-- KEYS: a ring. ARGV: none.
-- Returns: the clock, then the text of each step that is stored, in no order.
--
-- May race with: processes that note trends; it changes nothing. A key of another type has no
-- steps.
local all = redis.pcall('HGETALL', KEYS[1])
local answer = {whole(now())}
for i = 2, all.err and 0 or #all, 2 do answer[#answer + 1] = all[i] end
return answer
