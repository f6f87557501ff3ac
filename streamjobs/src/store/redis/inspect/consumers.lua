-- Reads the consumers of a group and their heartbeats.
--
-- KEYS: stream, lane, group hash. ARGV: group.
-- Returns: the clock, then for each consumer name, pending, idle time, time without a delivery or
-- nil, time of the last heartbeat or nil, and the heartbeat or nil.
--
-- Before: the group exists, else the script is refused. A server knows a consumer from the
-- consumer's first read on, older servers only from its first delivery; before that, its heartbeat
-- shows that it exists. The owners of released entries are not among the consumers.
-- May race with: anything; it changes nothing.
local group = ARGV[1]
redis.call('XPENDING', KEYS[1], group)
local heartbeats = fields_of(redis.call('HGETALL', KEYS[3]))
local names, rows = {}, {}
for i = 1, 2 do
  if pending_of(KEYS[i], group) then
    for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[i], group)) do
      local fields = fields_of(info)
      local name, inactive = fields['name'], fields['inactive']
      if inactive and inactive < 0 then inactive = nil end
      local row = rows[name]
      if released_for(name) then
        -- The owner of released entries is no consumer.
      elseif row then
        row[2] = row[2] + fields['pending']
        row[3] = math.min(row[3], fields['idle'])
        if inactive then row[4] = math.min(row[4] or inactive, inactive) end
      else
        names[#names + 1] = name
        rows[name] = {name, fields['pending'], fields['idle'], inactive or false,
          heartbeats['beat:' .. name] or false, heartbeats['about:' .. name] or false}
      end
    end
  end
end
for field, about in pairs(heartbeats) do
  local name = string.match(field, '^about:(.*)$')
  local heartbeat = name and not rows[name] and heartbeats['beat:' .. name]
  if heartbeat then
    names[#names + 1] = name
    local idle = math.max(now() - (tonumber(heartbeat) or 0), 0)
    rows[name] = {name, 0, idle, false, heartbeat, about}
  end
end
table.sort(names)
local answer = {now()}
for _, name in ipairs(names) do answer[#answer + 1] = rows[name] end
return answer
