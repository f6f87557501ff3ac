-- Functions that the scripts share. This text stands in front of every script. It touches no key.

-- The server's clock in milliseconds.
local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- A whole number as text. Lua would write large ones with an exponent.
local function whole(number)
  return string.format('%.0f', number)
end

-- The fields of a flat reply by their names.
local function fields_of(flat)
  local fields = {}
  for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
  return fields
end

-- Ids are compared and counted as text: a Lua number cannot hold all of their 64 bits.
local function parts(id)
  local milliseconds, sequence = string.match(id, '^(%d+)%-(%d+)$')
  return milliseconds, sequence
end

local function smaller(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end

-- Whether id a stands before id b.
local function precedes(a, b)
  local a_milliseconds, a_sequence = parts(a)
  local b_milliseconds, b_sequence = parts(b)
  if a_milliseconds ~= b_milliseconds then return smaller(a_milliseconds, b_milliseconds) end
  return smaller(a_sequence, b_sequence)
end

local SEQUENCE_MAX = '18446744073709551615'

-- The decimal number after this one.
local function increment(digits)
  local head, digit, nines = string.match(digits, '^(.-)([0-8]?)(9*)$')
  return head .. (digit == '' and '1' or tostring(digit + 1)) .. string.rep('0', #nines)
end

-- The decimal number before this one, which is not zero.
local function decrement(digits)
  local head, digit, zeros = string.match(digits, '^(.-)([1-9])(0*)$')
  local number = head .. tostring(digit - 1) .. string.rep('9', #zeros)
  return (string.gsub(number, '^0+(%d)', '%1'))
end

-- The id after this one; the highest stays.
local function following(id)
  local milliseconds, sequence = parts(id)
  if sequence ~= SEQUENCE_MAX then return milliseconds .. '-' .. increment(sequence) end
  if milliseconds == SEQUENCE_MAX then return id end
  return increment(milliseconds) .. '-0'
end

-- The id before this one; the lowest stays.
local function preceding(id)
  local milliseconds, sequence = parts(id)
  if sequence ~= '0' then return milliseconds .. '-' .. decrement(sequence) end
  if milliseconds == '0' then return id end
  return decrement(milliseconds) .. '-' .. SEQUENCE_MAX
end

-- What is pending in a group: count, lowest id, highest id, counts by consumer. Nil if the stream
-- or the group is not there; every other refusal ends the script.
local function pending_of(key, group)
  local summary = redis.pcall('XPENDING', key, group)
  if not summary.err then return summary end
  if string.sub(summary.err, 1, 7) == 'NOGROUP' then return nil end
  return redis.call('XPENDING', key, group)
end

-- Makes the group unless it is there. True if it was made.
local function ensure_group(key, group, from)
  if pending_of(key, group) then return false end
  redis.call('XGROUP', 'CREATE', key, group, from, 'MKSTREAM')
  return true
end

-- Whether this attempt, which is a consumer and a delivery count, still holds the entry: 1 if it
-- does, 0 if another attempt holds it, -1 if nobody does.
local function held(key, group, me, id, count)
  local row = redis.call('XPENDING', key, group, id, id, 1)[1]
  if not row then return -1 end
  if row[2] == me and row[4] == tonumber(count) then return 1 end
  return 0
end

-- Whether dead letters can be stored: the key may be of another type.
local function storable(dead)
  local length = redis.pcall('XLEN', dead)
  return type(length) == 'number'
end

-- Whether a claim loses nothing. It removes the record of an entry whose payload is gone without
-- saying so, which is only right where a dead letter can say so instead. Looking at the payload is
-- costly, and is done where no letter can be stored.
local function claimable(key, can_store, id)
  return can_store or #redis.call('XRANGE', key, id, id, 'COUNT', 1) > 0
end

-- Whether a dead letter that says that the payload was gone still stands for its entry: whoever
-- has the payload in hand may replace it.
local function stands(dead, letter)
  return letter ~= '' and redis.call('XRANGE', dead, letter, letter, 'COUNT', 1)[1] ~= nil
end

-- Stores that the payload of an entry was gone before its job was done. Answers the letter's id.
local function store_trimmed(dead, source, id, count, owner)
  return redis.call('XADD', dead, '*', 'sj-dead-reason', 'trimmed', 'sj-dead-entry', id,
    'sj-dead-source', source, 'sj-dead-deliveries', count, 'sj-dead-consumer', owner)
end
