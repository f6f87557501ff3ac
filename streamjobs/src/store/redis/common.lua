-- Functions that several scripts share. This text precedes each script. By itself it sends no
-- command.

-- The server's clock in milliseconds.
local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- A whole number as text. Lua would write large ones with an exponent.
local function whole(number)
  return string.format('%.0f', number)
end

-- The last time that can be scheduled to, in the year 9999.
local LAST_TIME = '253402300799999'

-- A score as a time in milliseconds. Another client can have set an infinite score, which no reply can carry: it counts
-- as the last time.
local function time_of(score)
  return math.min(math.max(tonumber(score), 0), tonumber(LAST_TIME))
end

-- The highest score of a sorted set that is a time. Higher scores that another client has set are ignored. 0 if
-- there is no such score, or if the key is of another type.
local function last_number(key)
  local last = redis.pcall('ZRANGE', key, LAST_TIME, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1, 'WITHSCORES')
  return not last.err and last[2] and time_of(last[2]) or 0
end

-- Appends a redriven job to the lane. Returns its id. The field `sj-redriven` tells which marks do not cancel it.
local function append_redriven(lane, marks, job)
  local last = last_number(marks)
  if last > 0 then
    job[#job + 1] = 'sj-redriven'
    job[#job + 1] = whole(last)
  end
  return redis.call('XADD', lane, '*', unpack(job))
end

-- What a rate means for its starts, in microseconds: the interval from one to the next, how far ahead of their
-- time starts may be granted, and how late each may be; nil if the text is no rate. Computed as in
-- `model/rate/pace.rs`.
local function pace_of(text)
  local starts, per, burst = string.match(text or '', '^(%d+)/(%d+)/(%d+)$')
  if not starts or tonumber(starts) < 1 or tonumber(per) < 1 or tonumber(burst) < 1 then return nil end
  local interval = tonumber(per) / tonumber(starts)
  local worth = interval * (tonumber(burst) - 1)
  local slack = math.min(worth / 2, 250000)
  return {interval = interval, tolerance = worth - slack, slack = slack}
end

-- A time in microseconds; nil for any other text.
local function micros_of(text)
  return type(text) == 'string' and #text <= 16 and string.match(text, '^%d+$') and tonumber(text) or nil
end

-- For how many more milliseconds a group waits, by its field `limited`, which gives the beginning and the end of
-- the wait: a day at most, and 0 if the text is not of that form. If the clock was set back since, the wait begins
-- again now, so that it lasts as long as was asked for. If `hash` is nil, nothing is changed.
local function limited_for(hash, text, clock)
  local from, till = string.match(text or '', '^(%d+) (%d+)$')
  if not from or #from > 15 or #till > 15 then return 0 end
  from, till = tonumber(from), tonumber(till)
  if clock < from then
    till = clock + till - from
    if not hash then return math.min(till - clock, 86400000) end
    redis.call('HDEL', hash, '')
    redis.call('HSET', hash, 'limited', whole(clock) .. ' ' .. whole(till))
  end
  return math.min(math.max(till - clock, 0), 86400000)
end

-- The fields of a flat reply by their names.
local function fields_of(flat)
  local fields = {}
  for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
  return fields
end

-- The value of a single field of a flat reply, in the form that `fields_of` returns; nil if there is no such
-- field.
local function value_of(flat, name)
  for i = #flat - 1, 1, -2 do
    if flat[i] == name then return flat[i + 1] end
  end
end

-- An error that pcall has caught, as an answer: servers give the text of a refusal, which begins with its code,
-- or a table with that text.
local function refusal_of(caught)
  local text = tostring(type(caught) == 'table' and caught.err or caught)
  return {err = string.match(text, '^%u+ ') and text or 'ERR ' .. text}
end

-- The names and values of a job in a record, as one list; nil if there is no readable record. A record that
-- cannot be appended counts as unreadable: another client has written it, and it must not end a script for all
-- other jobs. A job has at most a thousand fields, and a retry adds its own.
local JOB_WORDS_MAX = 2100

local function job_of(record)
  local readable, job = pcall(cmsgpack.unpack, record or '')
  if not readable or type(job) ~= 'table' then return nil end
  local count = #job
  if count == 0 or count % 2 == 1 or count > JOB_WORDS_MAX then return nil end
  for i = 1, count do
    if type(job[i]) ~= 'string' then return nil end
  end
  return job
end

-- When the waiting event of a record is due, in milliseconds; nil if it is not such a record. Its last field has
-- the time.
local function due_of(job)
  if not job or job[#job - 1] ~= 'sj-due' then return nil end
  local due = job[#job]
  return type(due) == 'string' and string.match(due, '^%d+$') and #due <= 15 and tonumber(due) or nil
end

-- Whether events are scheduled to a stream, as 1 or 0. The field '' of the records tells it. If an eviction of
-- all records took that field, the members still tell it: their events are lost, and the next call that enters
-- events counts them.
local function is_scheduled_to(field, waiting)
  return (field == 1 or waiting > 0) and 1 or 0
end

-- About how many names and values of entries one call moves at most: decoding and appending them takes the server
-- a few milliseconds. A page of 500 usual entries has fewer.
local WORDS_MAX = 12000

-- Reads a page of a hash from a cursor on, and passes each field and value to `visit`, which returns how many
-- words it has decoded. The page ends after 50 fields, or earlier, soon after so many bytes or words that other
-- clients would have to wait for long. A step reads one bucket of the hash, or a hash of small records as a
-- whole.
-- Returns: the next cursor, or nil and the refusal.
local function scan_page(key, cursor, visit)
  local fields, bytes, words = 0, 0, 0
  repeat
    local step = redis.pcall('HSCAN', key, cursor, 'COUNT', 1)
    if step.err then return nil, step.err end
    cursor = step[1]
    for i = 1, #step[2], 2 do
      words = words + (visit(step[2][i], step[2][i + 1]) or 0)
      fields, bytes = fields + 1, bytes + #step[2][i + 1]
    end
  until cursor == '0' or fields >= 50 or bytes >= 1024 * 1024 or words >= WORDS_MAX
  return cursor
end

-- The definition of a schedule: digest, kind, its description in JSON, and the size of its events' fields in
-- bytes; nil if it is missing or cannot be read.
local function spec_of(text)
  local readable, spec = pcall(cmsgpack.unpack, text or '')
  if not readable or type(spec) ~= 'table' then return nil end
  for i = 1, 3 do
    if type(spec[i]) ~= 'string' then return nil end
  end
  if spec[2] ~= 'code' and spec[2] ~= 'stored' then return nil end
  return {digest = spec[1], kind = spec[2], about = spec[3], bytes = tonumber(spec[4]) or 0}
end

-- The hash of schedules has three fields for each: the name has the definition, the name and "#" what became of
-- it, the name and "##" the fields of its events if they are fixed. The field "#" is a number that changes with
-- each definition and pause.
--
-- What became of a schedule. A record that cannot be read counts as empty.
local function record_of(specs, name)
  local readable, record = pcall(cmsgpack.unpack, redis.call('HGET', specs, name .. '#') or '')
  if not readable or type(record) ~= 'table' then record = {} end
  local read = {declared = {}, last_entry = type(record.last_entry) == 'string' and record.last_entry or nil}
  for _, field in ipairs({'since', 'fired', 'missed', 'runs', 'last', 'paused', 'skipped'}) do
    read[field] = tonumber(record[field])
  end
  if type(record.declared) == 'table' then
    for digest, at in pairs(record.declared) do
      if type(digest) == 'string' then read.declared[digest] = tonumber(at) end
    end
  end
  return read
end

local function store_record(specs, name, record)
  redis.call('HSET', specs, name .. '#', cmsgpack.pack(record))
end

-- Makes processes read the definitions again.
local function change_version(specs, clock)
  local version = tonumber(redis.call('HGET', specs, '#') or '') or 0
  redis.call('HSET', specs, '#', whole(math.max(version + 1, clock)))
  -- Without schedules, no process has to look for any.
  if redis.call('HLEN', specs) == 1 then redis.call('HDEL', specs, '#') end
end

-- The arguments of XADD after the key. `trimming` is "~" or "=" if appending trims to `kept` entries.
local function entry_words(trimming, kept, job)
  local words = trimming == '' and {'*'} or {'MAXLEN', trimming, kept, '*'}
  for _, word in ipairs(job) do words[#words + 1] = word end
  return words
end

-- How many bytes an entry id and an event id have at most. An entry id is two numbers of twenty digits with a dash
-- between them.
local ENTRY_ID_BYTES_MAX, EVENT_ID_BYTES_MAX = 41, 128

-- The event that has the lock of a digest: its entry, its event id, and for how many more milliseconds it has the lock;
-- nil if no event has it. A text of another form, or one that never expires, is not a lock: another client wrote it.
local function holder_of(lock)
  local held = redis.call('GET', lock) or ''
  local entry, id = string.match(held, '^(%d+%-%d+) ([^%c]+)$')
  if not entry or #entry > ENTRY_ID_BYTES_MAX or #id > EVENT_ID_BYTES_MAX then return nil end
  local rest = redis.call('PTTL', lock)
  if rest > 0 then return entry, id, rest end
end

-- Ends a lock if it belongs to this event. It must not end the script: if it fails, the lock ends at its time.
local function free_lock(lock, event_id)
  local held = redis.pcall('GET', lock)
  local _, id = string.match(type(held) == 'string' and held or '', '^(%d+%-%d+) (.+)$')
  if id == event_id then redis.pcall('DEL', lock) end
end

-- Ids are compared and counted as text: a Lua number cannot hold all of their 64 bits.
local function parts(id)
  local milliseconds, sequence = string.match(id, '^(%d+)%-(%d+)$')
  return milliseconds, sequence
end

-- Whether id a is before id b.
local function precedes(a, b)
  local a_part, a_sequence = parts(a)
  local b_part, b_sequence = parts(b)
  if a_part == b_part then a_part, b_part = a_sequence, b_sequence end
  if #a_part ~= #b_part then return #a_part < #b_part end
  return a_part < b_part
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

-- Whether a stream still has this entry.
local function has_entry(key, id)
  return redis.call('XRANGE', key, id, id, 'COUNT', 1)[1] ~= nil
end

-- The id of the first entry after a group's cursor; nil if the group has read all of them.
local function undelivered(stream, cursor)
  local behind = redis.call('XRANGE', stream, following(cursor), '+', 'COUNT', 1)[1]
  return behind and precedes(cursor, behind[1]) and behind[1] or nil
end

-- What is pending in a group: count, lowest id, highest id, counts by consumer. Nil if the stream
-- or the group does not exist; every other refusal ends the script.
local function pending_of(key, group)
  local summary = redis.pcall('XPENDING', key, group)
  if not summary.err then return summary end
  if string.sub(summary.err, 1, 7) == 'NOGROUP' then return nil end
  return redis.call('XPENDING', key, group)
end

-- The server's report on the group with this name, by field; nil if there is no such group.
local function named(groups, name)
  for _, info in ipairs(groups) do
    -- A stream may have a thousand groups, so the fields of the other groups are not read.
    local known = info[1] == 'name' and info[2] or value_of(info, 'name')
    if known == name then return fields_of(info) end
  end
end

-- The server's report on a group, by field; nil if the stream has no such group.
local function group_of(key, name)
  return named(redis.call('XINFO', 'GROUPS', key), name)
end

-- Entries ever added to a stream: those that a group has read plus its lag. `XINFO STREAM` gives this number too,
-- but copies the first and the last payload. So it is asked only if the stream is empty and nothing can be
-- copied, or if the counts of no group tell: newer servers report all entries as the lag of a group whose cursor
-- is before the first entry, however many were added and removed before.
local function added_to(stream, length, groups)
  for _, info in ipairs(groups) do
    local group = fields_of(info)
    local read, lag = group['entries-read'], group['lag']
    if length > 0 and read and lag and lag >= 0 and lag ~= length then return read + lag end
  end
  return fields_of(redis.call('XINFO', 'STREAM', stream))['entries-added']
end

-- The id of the server's data set, which is another one after a failover or a restart. Nil if the user may not
-- ask.
local function data_set()
  local answer = redis.pcall('INFO', 'replication')
  return type(answer) == 'string' and string.match(answer, 'master_replid:(%x+)') or nil
end

-- Whether a replica that takes over is known to keep how many entries a group has read. Redis 7.0.15 and 7.2.4 do
-- not send that number to replicas, 7.4.1 does. Valkey does, but reports version 7.2.4 here.
local function keeps_counts()
  return (tonumber(redis.REDIS_VERSION_NUM) or 0) >= 0x00070400
end

-- Creates the group unless it exists. Returns true if it was created.
local function ensure_group(key, group, from)
  if pending_of(key, group) then return false end
  redis.call('XGROUP', 'CREATE', key, group, from, 'MKSTREAM')
  return true
end

-- Whether this attempt, which is a consumer and a delivery count, owns the entry: 1 if it does, 0 if another attempt
-- does, -1 if the entry is not pending and no consumer will get it, -2 if it is not pending and the group's cursor is
-- before it, so that it is delivered again. If the stream was deleted or evicted and the group created again, the
-- cursor can be before an entry that is gone: no consumer will get that entry.
local function held(key, group, me, id, count)
  local row = redis.call('XPENDING', key, group, id, id, 1)[1]
  if not row then
    local info = group_of(key, group)
    return info and precedes(info['last-delivered-id'], id) and has_entry(key, id) and -2 or -1
  end
  if row[2] == me and row[4] == tonumber(count) then return 1 end
  return 0
end

-- Delivery counts of a consumer's entries by id, for those ids that ranges of the pending list show at less cost than
-- asking for each id. The ids are in ascending order. The caller has to ask separately for each id that has no count in
-- the result. Other entries of the consumer appear in a range too; a row of a range costs a third of asking for one
-- entry.
local function own_counts(key, group, me, ids)
  local counts, at = {}, 1
  while at <= #ids do
    local asked = 2 * (#ids - at + 1)
    local rows = redis.call('XPENDING', key, group, ids[at], ids[#ids], asked, me)
    for _, row in ipairs(rows) do counts[row[1]] = row[4] end
    if #rows < asked then break end
    local from, reached = at, rows[#rows][1]
    while ids[at] and (counts[ids[at]] or precedes(ids[at], reached)) do at = at + 1 end
    if 3 * (at - from) < #rows then break end
  end
  return counts
end

-- How an attempt names an entry that was removed from the pending list while it had the lease: by the deletion of
-- its consumer, or by hand.
local REMOVED = 'removed'

-- Whether an attempt may settle its entry: it owns the entry; or a renewal of this attempt found the payload
-- trimmed, and the dead letter stored for it still exists; or the attempt knows that the entry was removed, and
-- no consumer will get it.
local function may_settle(state, dead, instead)
  if instead == REMOVED then return state == 1 or state == -1 end
  return state == 1 or state < 0 and instead ~= '' and has_entry(dead, instead)
end

-- Acknowledges an entry after the next form of its job, such as a retry, was stored. That form replaces the dead
-- letter for a trimmed payload. Entries of a lane are deleted.
local function settle(key, group, source, id, state, dead, instead)
  if state < 0 and instead ~= REMOVED then redis.call('XDEL', dead, instead) end
  redis.call('XACK', key, group, id)
  if source == 'lane' then redis.call('XDEL', key, id) end
end

-- Whether dead letters can be stored: the key may be of another type.
local function storable(dead)
  local length = redis.pcall('XLEN', dead)
  return type(length) == 'number'
end

-- Whether claiming an entry loses nothing. A claim silently removes an entry whose payload is trimmed, which is
-- safe only if a dead letter can be stored for it. Reading the payload is expensive, so it is checked only if no
-- dead letter can be stored.
local function claimable(key, can_store, id)
  return can_store or has_entry(key, id)
end

-- Stores a dead letter for an entry whose payload was trimmed before its job was done. Returns the
-- letter's id.
local function store_trimmed(dead, source, id, count, owner)
  return redis.call('XADD', dead, '*', 'sj-dead-reason', 'trimmed', 'sj-dead-entry', id,
    'sj-dead-source', source, 'sj-dead-deliveries', count, 'sj-dead-consumer', owner)
end

-- The consumer for which entries are pending once they are released. It has no heartbeat, and is removed with its
-- last entry. Entries that are handed over to a live process are released for that process alone: its name
-- follows, after a colon.
local RELEASED = 'streamjobs-released'

-- For whom an owner's entries are released: a name, or '' for any process; nil if they are not released.
local function released_for(owner)
  if owner == RELEASED then return '' end
  local length = #RELEASED + 1
  return string.sub(owner, 1, length) == RELEASED .. ':' and string.sub(owner, length + 1) or nil
end

-- How long after its heartbeat a consumer counts as alive, in milliseconds: it may miss two heartbeats.
local function valid_for(interval)
  interval = tonumber(interval or '') or 0
  return 3 * (interval > 0 and interval or 10000) + 1000
end

-- What a consumer's heartbeat says, by name; nil if it cannot be read.
local function about_of(hash, consumer)
  local text = redis.pcall('HGET', hash, 'about:' .. consumer)
  local readable, about = pcall(cjson.decode, type(text) == 'string' and text or '')
  return readable and type(about) == 'table' and about or nil
end

-- Whether a consumer sends heartbeats and its last one is recent.
local function is_alive(hash, consumer)
  local about, sent = about_of(hash, consumer), redis.pcall('HGET', hash, 'beat:' .. consumer)
  sent = tonumber(type(sent) == 'string' and sent or '') or 0
  return about ~= nil and now() - sent <= valid_for(about['beat_every'])
end

-- How long after its heartbeat a consumer counts as gone: after `silence`, and not before it has missed two of the
-- heartbeats that it announced.
local function gone_after(hash, consumer, silence)
  local every = tonumber((about_of(hash, consumer) or {})['beat_every'] or '') or 0
  return every > 0 and math.max(silence, valid_for(every)) or silence
end

-- The limit that an operator has set: what it counts together ("key" or "group") and its number, as texts; nothing for
-- any other text, which another client can have written.
local function limit_set(hash)
  local text = redis.call('HGET', hash, 'limit') or ''
  return string.match(text, '^(%a+) (%d+) %d+ {"from":%d+,"by":".*","why":".*}$')
end

-- Until when a live process declares an event type, or may have any.
local function declared_until(hash, event_type)
  local until_of = function(name) return tonumber(redis.call('HGET', hash, 'type:' .. name) or '') or 0 end
  return math.max(until_of(event_type), until_of('*'))
end

-- The event types that a heartbeat declares, as keys; false if its consumer may have any type, because it has a
-- handler for all, its list was cut, or the heartbeat has no list.
local function types_of(about)
  local readable, said = pcall(cjson.decode, about or '')
  local types = readable and type(said) == 'table' and said['types']
  if type(types) ~= 'table' or said['types_cut'] == true then return false end
  local declared = {}
  for _, event_type in ipairs(types) do declared[event_type] = true end
  return not declared['*'] and declared
end

-- For how long the entries of each owner must be idle before others may claim them: the lease in the owner's
-- heartbeat, which may be longer or shorter than the caller's. Versions that write no lease write how often they
-- send heartbeats; three times that is at least a lease. `default` is for owners that have no heartbeat, and for
-- numbers that no version writes. Released entries may be claimed at once, by `me`, or by any process if `me` is
-- nil; entries released for another live process may be claimed when they have been idle for its lease.
local function leases(hash, default, me)
  local known = {}
  local function milliseconds(number)
    number = tonumber(number) or 0
    return number > 0 and number < 2 ^ 53 and math.floor(number) == number and number or 0
  end
  local function said_by(owner)
    local about = about_of(hash, owner) or {}
    local lease = milliseconds(about['lease'])
    return lease > 0 and lease or math.max(default, 3 * milliseconds(about['beat_every']))
  end
  return function(owner)
    if not known[owner] then
      local heir = released_for(owner)
      local free = heir and (not me or heir == '' or heir == me or not is_alive(hash, heir))
      known[owner] = free and 0 or said_by(heir or owner)
    end
    return known[owner]
  end
end
