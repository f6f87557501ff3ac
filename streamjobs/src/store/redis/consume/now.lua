-- Tells the server's clock.
--
-- KEYS: the stream of the caller. ARGV: none.
-- Returns: the server's clock in milliseconds.
--
-- Before and after: nothing is read or changed. Because of the key, a cluster answers as it answers
-- renewals: while the stream's slot cannot be used, or is at another node, the node that was asked
-- refuses. The command TIME would get an answer all the same.
-- May race with: nothing.
return now()
