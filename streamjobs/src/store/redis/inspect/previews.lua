-- Reads entries with the beginnings of their values, for lists.
--
-- KEYS: stream. ARGV: "oldest" or "newest", the id to begin with, the id to end with, entries at
-- most, "entry" or "letter", and how many bytes at most: of a value of the payload, of a value of this crate's own
-- fields, to read, and to return.
-- Returns: 1 if there may be more or else 0, then for each entry its id, the bytes of its payload,
-- and a list of name, beginning of the value and length of the value for each field that is shown.
--
-- Before: the stream may exist or not.
-- May race with: anything; it changes nothing.
--
-- The server reads whole entries, and all other clients wait meanwhile. So large entries end a page early. One entry is
-- always read, and at most eight entries beyond the limit of bytes. Of a dead letter, the fields about its end and the
-- type are shown. Of the packed fields of a job that had too many, the beginning is shown, which has the type.
local stream, newest = KEYS[1], ARGV[1] == 'newest'
local from, to, most, letter = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5] == 'letter'
local value_most, own_most = tonumber(ARGV[6]), tonumber(ARGV[7])
local read_most, shown_most = tonumber(ARGV[8]), tonumber(ARGV[9])
local NAME_MOST, PACKED_SHOWN, ENTRY_MOST, PAGE = 1024, 4096, 256 * 1024, 8
local answer, read, shown = {0}, 0, 0

-- How many bytes of a value are shown, and whether it is part of the payload; nil if it is not shown.
local function room(name)
  if name == 'sj-dead-raw' then return letter and PACKED_SHOWN or value_most, true end
  if name == 'type' then return own_most, false end
  -- The past attempts that a job carries are read separately, where they are shown.
  if name == 'sj-history' then return not letter and value_most or nil, false end
  if letter and string.sub(name, 1, 8) == 'sj-dead-' then return own_most, false end
  if letter then return nil, true end
  -- Headers belong to the application, as its payload does.
  if string.sub(name, 1, 10) == 'sj-header-' then return value_most, true end
  if string.sub(name, 1, 3) == 'sj-' then return own_most, false end
  return value_most, true
end

-- The result of `room` for each name: the entries of a stream have the same few names.
local rooms = {}
local function room_of(name)
  local known = rooms[name]
  if not known then
    local bytes, is_payload = room(name)
    known = {bytes, is_payload}
    rooms[name] = known
  end
  return known[1], known[2]
end

local function add(entry)
  local fields, payload, before = {}, 0, shown
  for i = 1, #entry[2], 2 do
    local name, value = entry[2][i], entry[2][i + 1]
    local bytes, is_payload = room_of(name)
    read = read + #name + #value
    if is_payload then payload = payload + #name + #value end
    if bytes and shown - before < ENTRY_MOST then
      local part = #value > bytes and string.sub(value, 1, bytes) or value
      if #name > NAME_MOST then name = string.sub(name, 1, NAME_MOST) end
      shown = shown + #name + #part
      fields[#fields + 1] = name
      fields[#fields + 1] = part
      fields[#fields + 1] = #value
    end
  end
  answer[#answer + 1] = {entry[1], payload, fields}
end

-- The pages are small: the size of an entry is known only after it is read, and large ones may follow small ones.
local asked = 1
while #answer <= most do
  local count, before = math.min(asked, most + 1 - #answer), read
  local page = newest and redis.call('XREVRANGE', stream, from, to, 'COUNT', count)
    or redis.call('XRANGE', stream, from, to, 'COUNT', count)
  for _, entry in ipairs(page) do add(entry) end
  if #page < count then return answer end
  local last = page[#page][1]
  from = newest and preceding(last) or following(last)
  if from == last then return answer end
  if read >= read_most or shown >= shown_most then break end
  asked = (read - before) / #page > 16 * 1024 and 1 or math.min(2 * asked, PAGE)
end
answer[1] = 1
return answer
