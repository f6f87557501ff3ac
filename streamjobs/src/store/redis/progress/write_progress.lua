-- Writes how far jobs are, and removes the progress of jobs that ended.
--
-- KEYS: stream, lane, progress. ARGV: group, consumer, how long to keep in milliseconds, the most fields,
-- then source ("stream" or "lane"), id, delivery count and line for each job; an empty line removes.
-- Returns: how many were written.
--
-- Before: each entry is pending for this attempt or another one, or not pending.
-- After: the field of an entry of this attempt has the clock, the delivery count, the consumer and the
-- line. A removal leaves what another attempt has written. The key expires after its last write.
-- May race with: claims and acknowledgements. Progress that was written before an entry is claimed stays
-- but is not shown, because it names another attempt; the next attempt overwrites it. A repetition changes
-- only the time.
--
-- If there are too many fields, all fields are removed, to get rid of those that dead processes have left: that costs
-- one command, and live jobs write theirs again.
local progress, group, me = KEYS[3], ARGV[1], ARGV[2]
local keep, most = ARGV[3], tonumber(ARGV[4])
local clock, written = whole(now()), 0
for i = 5, #ARGV, 4 do
  local source, id, count, line = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local key, field = source == 'lane' and KEYS[2] or KEYS[1], source .. ':' .. id
  local attempt = count .. ' ' .. me .. '\n'
  if line == '' then
    local stored = redis.call('HGET', progress, field) or ''
    local start = string.find(stored, ' ', 1, true)
    if start and string.sub(stored, start + 1, start + #attempt) == attempt then
      redis.call('HDEL', progress, field)
    end
  else
    -- One inlet may have lost its group, which must not fail the jobs of the other.
    local known, state = pcall(held, key, group, me, id, count)
    if known and state == 1 then
      redis.call('HSET', progress, field, clock .. ' ' .. attempt .. line)
      written = written + 1
    end
  end
end
if written > 0 then
  if redis.call('HLEN', progress) > most then redis.call('DEL', progress) end
  redis.pcall('PEXPIRE', progress, keep)
end
return written
