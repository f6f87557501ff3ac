-- Marks work as begun.
--
-- KEYS: mark. ARGV: owner, origin, how long the work may take and how long the mark is kept, both in
-- milliseconds.
-- Answers: "done"; or "running" and how many milliseconds are left; or "begun", and 1 if the work was
-- begun before and neither finished nor undone.
--
-- Before: there may be a mark or not.
-- After: unless the answer is another one, the mark names this owner. Otherwise nothing has changed.
-- May race with: others who begin, finish or undo; whoever comes first is seen by the next.
--
-- A job of the same origin is the same job, delivered again: the server takes it from one owner before
-- it gives it to the next, so its mark need not run out. The same event published twice has two
-- origins. The empty removal is the first write on purpose: jobs go on where the server is out of
-- memory, as they do without marks.
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
