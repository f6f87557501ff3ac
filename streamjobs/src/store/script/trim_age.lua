-- Removes entries that are older than an age by the server's clock.
--
-- KEYS: stream. ARGV: age in milliseconds.
-- Answers: how many went.
--
-- Before: the stream may be there or not.
-- After: whole nodes of older entries are gone, as many as the server removes in one go, whether
-- any group needs them or not.
-- May race with: anything; what is pending without a payload is found by renewals and sweeps.
return redis.call('XTRIM', KEYS[1], 'MINID', '~', whole(math.max(now() - tonumber(ARGV[1]), 0)))
