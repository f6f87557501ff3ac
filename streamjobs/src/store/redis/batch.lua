end

-- The rest of a script that makes many calls of another script, whose text is the body of `step`.
--
-- KEYS: none. The keys may be in several slots of this node, which the caller cannot declare. ARGV: how
-- many keys and how many arguments each call has, and then the keys and arguments of each call.
-- Returns: the answer of each call, or its error. An error in one call does not end the others. A call
-- whose first key does not exist is an error: behind a proxy, the keys may be at another server.
local key_count, argument_count = tonumber(ARGV[1]), tonumber(ARGV[2])
local answers, at = {}, 3
local function take(count)
  local words = {}
  for i = 1, count do words[i] = ARGV[at + i - 1] end
  at = at + count
  return words
end

local function made_here(keys, arguments)
  redis.call('XINFO', 'GROUPS', keys[1])
  return step(keys, arguments)
end

while at <= #ARGV do
  local keys = take(key_count)
  local made, answer = pcall(made_here, keys, take(argument_count))
  if not made then
    answer = {err = type(answer) == 'table' and answer.err or 'ERR ' .. tostring(answer)}
  end
  answers[#answers + 1] = answer
end
return answers
