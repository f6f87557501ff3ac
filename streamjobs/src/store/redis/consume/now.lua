-- Tells the server's clock.
--
-- KEYS: the stream of the caller. ARGV: none.
-- Returns: the server's clock in milliseconds.
--
-- Before and after: nothing is read or changed. The key makes a cluster answer as it answers renewals:
-- while the stream's slot cannot be used, or is at another node, this one says so. TIME would not.
-- May race with: nothing.
return now()
