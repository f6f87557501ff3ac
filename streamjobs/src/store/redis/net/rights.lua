-- Checks which commands the caller may run, without running any.
--
-- KEYS: none. Keys are among the words, because with a declared key that the caller may not touch,
-- the whole call would be refused. ARGV: for each command, the number of its words, then the words.
-- Returns: for each command 1 if it is allowed, 0 if it is not, 2 if the server does not know it
-- because it was renamed or disabled. An error if the server cannot check commands.
--
-- Before and after: nothing is read or changed. May race with: anything.
if not redis.acl_check_cmd then
  return redis.error_reply('ERR this server cannot check commands')
end
local answers, place = {}, 1
while place <= #ARGV do
  local words = tonumber(ARGV[place])
  -- A command that the server does not know raises an error.
  local known, allowed = pcall(redis.acl_check_cmd, unpack(ARGV, place + 1, place + words))
  answers[#answers + 1] = not known and 2 or allowed and 1 or 0
  place = place + words + 1
end
return answers
