-- Marks work as begun.
--
-- KEYS: mark. ARGV: owner, origin, how long the work may take and how long the mark is kept, both
-- in milliseconds.
-- Returns: "done"; or "running" and how many milliseconds are left; or "begun", and 1 if the work
-- was begun before and neither finished nor undone.
--
-- Before: there may be a mark or not.
-- After: if the answer is "begun", the mark names this owner. Otherwise nothing has changed.
-- May race with: other callers that begin, finish or undo; each sees what the one before it did.
--
-- A job of the same origin is the same job, delivered again: the server takes it from one owner
-- before it gives it to the next, so its mark need not expire first. The same event published twice
-- has two origins. The first write is a no-op removal, so that jobs continue while the server is
-- out of memory, as they do without marks.
local key, owner, origin = KEYS[1], ARGV[1], ARGV[2]
local expiry, keep = tonumber(ARGV[3]), ARGV[4]
local mark = fields_of(redis.call('HGETALL', key))
local clock = now()
if mark['done'] then return {'done'} end
if mark['owner'] and mark['origin'] ~= origin then
  local rest = (tonumber(mark['until']) or 0) - clock
  if rest > 0 then return {'running', rest} end
end
redis.call('HDEL', key, '')
redis.call('HSET', key, 'owner', owner, 'origin', origin, 'until', whole(clock + expiry))
redis.call('PEXPIRE', key, keep)
return {'begun', mark['owner'] and 1 or 0}
