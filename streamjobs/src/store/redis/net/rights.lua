-- Checks which commands the caller may run, without running any.
--
-- KEYS: none; keys are among the words, because a key that the caller may not touch would have the
-- whole call refused. ARGV: for each command, the number of its words, then the words.
-- Returns: 1 or 0 for each command.
--
-- Before and after: nothing is read or changed. May race with: anything.
local answers, place = {}, 1
while place <= #ARGV do
  local words = tonumber(ARGV[place])
  local allowed = redis.acl_check_cmd(unpack(ARGV, place + 1, place + words))
  answers[#answers + 1] = allowed and 1 or 0
  place = place + words + 1
end
return answers
