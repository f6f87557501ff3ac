-- The relay skips the rows that were moved long ago, which stay in the indexes as long as some
-- transaction holds an old snapshot. To know which ids are given out, it reads the sequence behind
-- them: a number that says nothing but how many events were published.
GRANT SELECT ON SEQUENCE streamjobs.outbox_id_seq TO PUBLIC;
