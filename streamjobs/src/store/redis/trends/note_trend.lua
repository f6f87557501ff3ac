-- Adds what a process did since its last note.
--
-- KEYS: the ring of minutes, the ring of quarters of an hour. ARGV: how many jobs were done, how many attempts
-- failed, how many entries waited, for how many milliseconds the oldest had; how many jobs waited about how long and
-- how many attempts ran about how long, each as `bucket:count` with commas or `-`; then for each ring the milliseconds
-- of a step and how many steps it has.
-- Returns: the clock.
--
-- Before: a ring has a field for each step in which something was noted, named after the step's number modulo the
-- number of steps. The field has the step's number and the first six arguments.
-- After: the current step has these arguments in addition to what it had. Counts are added; of the backlog, the highest
-- value stays. A field of another step is replaced, even of a later one if the clock was set back by more than a ring;
-- so is a field that cannot be read. Words that a later version has appended stay. The rings expire when all their
-- steps are too old.
-- May race with: other processes that note trends, and readers. A repeat after a lost answer adds it twice.
--
-- Both rings are read before the first is written, so that a key of another type refuses the whole call; a server out
-- of memory refuses the first write.
local clock = now()

local function add_counts(known, added)
  local counts, buckets = {}, {}
  for _, text in ipairs({known, added}) do
    for bucket, count in string.gmatch(text, '(%d+):(%d+)') do
      bucket = #bucket <= 2 and tonumber(bucket) or 99
      if bucket < 61 and #count <= 15 then
        if not counts[bucket] then buckets[#buckets + 1] = bucket end
        counts[bucket] = (counts[bucket] or 0) + tonumber(count)
      end
    end
  end
  if #buckets == 0 then return '-' end
  table.sort(buckets)
  local words = {}
  for place, bucket in ipairs(buckets) do words[place] = bucket .. ':' .. whole(counts[bucket]) end
  return table.concat(words, ',')
end

local function add_to(stored, number)
  local pattern = '^(%d+) (%d+) (%d+) (%d+) (%d+) (%S+) (%S+)(.*)$'
  local known = {string.match(stored or '', pattern)}
  if known[1] ~= number then known = {number, 0, 0, 0, 0, '-', '-', ''} end
  local function count(place) return math.min(tonumber(known[place]), 2 ^ 53), math.min(tonumber(ARGV[place - 1]), 2 ^ 53) end
  local function sum(place) local one, other = count(place) return whole(one + other) end
  local function most(place) return whole(math.max(count(place))) end
  return table.concat({number, sum(2), sum(3), most(4), most(5), add_counts(known[6], ARGV[5]),
    add_counts(known[7], ARGV[6])}, ' ') .. (#known[8] <= 4096 and known[8] or '')
end

local rings = {}
for place, key in ipairs(KEYS) do
  local step, steps = tonumber(ARGV[5 + 2 * place]), tonumber(ARGV[6 + 2 * place])
  local number = math.floor(clock / step)
  local field = whole(number % steps)
  local text = add_to(redis.call('HGET', key, field), whole(number))
  rings[place] = {key = key, field = field, text = text, keep = whole(step * (steps + 1))}
end
for _, ring in ipairs(rings) do
  redis.call('HSET', ring.key, ring.field, ring.text)
  -- The ring is bounded even without an expiry, so a user who may not set it is not refused after the write.
  redis.pcall('PEXPIRE', ring.key, ring.keep)
end
return clock
