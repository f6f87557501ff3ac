-- Reads how far jobs are.
--
-- KEYS: progress. ARGV: a field for each job.
-- Returns: the clock, then for each field what is stored, or nil.
--
-- May race with: anything; it changes nothing. A key of another type has no progress. All fields are read
-- in one command: there is one for each job that reports, and the writer limits how many are left behind.
local all = redis.pcall('HGETALL', KEYS[1])
local fields = all.err and {} or fields_of(all)
local answer = {whole(now())}
for i = 1, #ARGV do answer[#answer + 1] = fields[ARGV[i]] or false end
return answer
