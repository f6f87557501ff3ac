-- Appends an event unless another event has the lock of its digest.
--
-- KEYS: stream, lock. ARGV: "~" or "=" for a maximum length, or nothing; entries to keep; event id; milliseconds for
-- which it has the lock; then the names and values of the entry.
-- Returns: {1, entry id} if it is appended, or {0, entry id, event id, milliseconds} of the event that has the lock,
-- which may be this one.
--
-- Before: the lock names the event that has it, with its entry, and expires; or there is no lock.
-- After: the lock names an event whose entry was appended in the same step in which the lock was set. A
-- key that is not a lock of this program, or that does not expire, is replaced.
-- May race with: other publishers of the digest, of which the first to run appends; the end of the job, a
-- release by hand and the expiry, after any of which the next one appends. A repetition finds its own
-- event, and appends nothing.
--
-- The lock is the first write: a server out of memory refuses it, and nothing has changed. If the entry is refused, the
-- lock is removed again: an event that is reported as not stored must not have it.
local stream, lock = KEYS[1], KEYS[2]
local trimming, kept, id, window = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
-- A key of another type refuses the call before anything is written.
redis.call('XLEN', stream)
local stands, holder, rest = holder_of(lock)
if stands then return {0, stands, holder, rest} end
redis.call('SET', lock, '0-0 ' .. id, 'PX', window)
local job = {}
for i = 5, #ARGV do job[#job + 1] = ARGV[i] end
local entry = redis.pcall('XADD', stream, unpack(entry_words(trimming, kept, job)))
if type(entry) == 'table' then
  redis.call('DEL', lock)
  return entry
end
redis.call('SET', lock, entry .. ' ' .. id, 'PX', window)
return {1, entry}
