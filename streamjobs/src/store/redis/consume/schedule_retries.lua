-- Schedules the retries of failed jobs.
--
-- KEYS: stream or lane, dead letters, retry set, retry records. ARGV: group, consumer, source, then for
-- each job the id of its entry, delivery count, what stands for the entry, delay in milliseconds, and its
-- record: its names and values in MessagePack. What stands for it is the id of the dead letter that a
-- renewal stored, "removed", or nothing.
-- Returns: for each job 1 scheduled, 0 owned by another attempt, -1 not pending, -2 not pending and
-- delivered again, or an error, after which nothing was changed for this job. If every answer is an
-- error, the script ends with the first of them.
--
-- Before: each entry is pending for this attempt or another one, or not pending.
-- After: for each entry that this attempt owned, record and due time are stored, and then it is
-- acknowledged, and deleted if it was in the lane. Its payload may be trimmed, because the record is
-- complete. If the entry is not pending, but a renewal of this attempt found its payload trimmed and the
-- dead letter stored for that is still there, the retry replaces that letter. If the attempt knows that
-- the entry was removed, the retry is stored unless it is there already.
-- May race with: claims and acknowledgements. A repeat after a lost answer finds nothing pending and
-- changes nothing; a repeat for a removed entry stores a second retry if the first one was promoted in
-- between.
--
-- After a failover an id can exist twice, so a record of the same name is never overwritten. The records
-- are written first, then the members, then the acknowledgements: a server out of memory refuses each
-- record, and the entries stay pending. A job whose record is refused is left out of the later steps. Ids
-- in ascending order cost the least.
local key, dead, retry, records = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, me, source = ARGV[1], ARGV[2], ARGV[3]
local FIRST, WORDS = 4, 5
local ids = {}
for i = FIRST, #ARGV, WORDS do ids[#ids + 1] = ARGV[i] end
local counts = own_counts(key, group, me, ids)
local prefix = source == 'lane' and 'l:' or 's:'
local clock = now()
redis.call('ZCARD', retry)

local members, letters, acks = {}, {}, {}
-- The entries that jobs of this call have settled, each with its state afterwards, and the letters that
-- they have replaced: later jobs of the call need them.
local settled, replaced = {}, {}
local due_after = {}
local function schedule(id, count, instead, delay, record)
  local state = settled[id] or counts[id] == tonumber(count) and 1 or held(key, group, me, id, count)
  if not may_settle(state, dead, instead) or state < 0 and replaced[instead] then return state end
  due_after[delay] = due_after[delay] or whole(clock + tonumber(delay))
  local member, due = prefix .. id, due_after[delay]
  local stored = redis.call('HSETNX', records, member, record)
  if stored == 0 and instead == REMOVED and state == -1 then
    redis.call('ZADD', retry, 'NX', due, member)
    return 1
  end
  for _ = 1, 64 do
    if stored == 1 then break end
    member = member .. '+'
    stored = redis.call('HSETNX', records, member, record)
  end
  if stored ~= 1 then error({err = 'ERR too many retries have the same id'}) end
  members[#members + 1], members[#members + 2] = due, member
  if state < 0 and instead ~= REMOVED then
    letters[#letters + 1], replaced[instead] = instead, true
  end
  acks[#acks + 1], settled[id] = id, math.min(state, -1)
  return 1
end

local answers, refused, at = {}, 0, FIRST
local function schedule_until_refused()
  while at <= #ARGV do
    local answer = schedule(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4])
    answers[#answers + 1], at = answer, at + WORDS
  end
end
while at <= #ARGV do
  local made, caught = pcall(schedule_until_refused)
  if not made then
    answers[#answers + 1], refused, at = refusal_of(caught), refused + 1, at + WORDS
  end
end
if refused > 0 and refused == #answers then return answers[1] end
if #members > 0 then
  -- In reverse order: a small set finds the place of a member faster if it comes first.
  local backwards = {}
  for i = #members, 1, -2 do
    backwards[#backwards + 1], backwards[#backwards + 2] = members[i - 1], members[i]
  end
  redis.call('ZADD', retry, unpack(backwards))
end
if #letters > 0 then redis.call('XDEL', dead, unpack(letters)) end
if #acks > 0 then
  redis.call('XACK', key, group, unpack(acks))
  if source == 'lane' then redis.call('XDEL', key, unpack(acks)) end
end
return answers
