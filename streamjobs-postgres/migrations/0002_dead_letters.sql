-- Dead letters of every group on every stream, to be queried and joined.
CREATE TABLE streamjobs.dead_letters (
    id             bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream         text        NOT NULL,
    group_name     text        NOT NULL,
    -- The letter's own entry in the dead-letter stream, and a digest of all it held. Together they tell a letter that is stored again from another one: after a fail-over
    -- a server may give one entry id to two entries.
    letter_id      text        NOT NULL,
    digest         bytea       NOT NULL,
    event_id       text,
    event_type     text,
    -- exhausted, rejected, undecodable, crashed, trimmed or unhandled.
    reason         text        NOT NULL,
    -- The last error with its causes in one line.
    error          text,
    -- The same for errors that differ only in numbers, ids and quoted values.
    fingerprint    text        NOT NULL,
    attempts       integer     NOT NULL,
    deliveries     bigint      NOT NULL,
    consumer       text,
    -- The entry that was buried, and the one that was published.
    entry_id       text,
    origin_id      text,
    published_at   timestamptz,
    first_delivery timestamptz,
    last_delivery  timestamptz,
    buried_at      timestamptz NOT NULL,
    archived_at    timestamptz NOT NULL DEFAULT now(),
    -- The fields of the entry, byte for byte; empty where the payload was trimmed away.
    field_names    bytea[]     NOT NULL,
    field_values   bytea[]     NOT NULL,
    -- The payload as far as it is JSON that can be queried: a view of the bytes above, for searching.
    payload        jsonb,
    -- The guard says that the job was done all the same: nothing is lost, and nothing to redrive.
    known_done     boolean     NOT NULL DEFAULT false,
    -- When the job was put back for its group; NULL as long as it was not.
    redriven_at    timestamptz,
    UNIQUE (stream, group_name, letter_id, digest),
    CHECK (cardinality(field_names) = cardinality(field_values))
);

CREATE INDEX dead_letters_by_group ON streamjobs.dead_letters (stream, group_name, id);
CREATE INDEX dead_letters_by_event ON streamjobs.dead_letters (event_id);
CREATE INDEX dead_letters_by_fingerprint ON streamjobs.dead_letters (fingerprint, id);
CREATE INDEX dead_letters_by_age ON streamjobs.dead_letters (buried_at);
-- What is open is found without passing what was put back long ago, which may be nearly all.
CREATE INDEX dead_letters_open ON streamjobs.dead_letters (stream, group_name, id)
    WHERE redriven_at IS NULL AND NOT known_done;

-- Who put jobs back, and why. The rows stay when the letters are pruned.
CREATE TABLE streamjobs.redrives (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    requested_by text        NOT NULL,
    reason       text        NOT NULL,
    -- The selection, as it was asked for.
    selection    jsonb       NOT NULL,
    -- Whether letters are put back that were put back before, or are known as done.
    again        boolean     NOT NULL,
    -- How many jobs a second at most, and after how many failures it stops; NULL for no bound.
    rate         bigint,
    stop_after   bigint,
    -- Begins the tokens by which Redis knows that a job was put back already. The number above
    -- would not do: another database, or this one restored, may give it to another request.
    token        text        NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    -- running, finished, stopped (by failures), or cancelled.
    state        text        NOT NULL DEFAULT 'running',
    finished_at  timestamptz,
    -- How many letters it is about, and what has become of them.
    letters      bigint      NOT NULL DEFAULT 0,
    done         bigint      NOT NULL DEFAULT 0,
    failed       bigint      NOT NULL DEFAULT 0,
    skipped      bigint      NOT NULL DEFAULT 0,
    -- Failures since it was begun or resumed, which stop_after bounds.
    failures     bigint      NOT NULL DEFAULT 0,
    -- From when on the next batch may begin.
    next_at      timestamptz NOT NULL DEFAULT now(),
    CHECK (state IN ('running', 'finished', 'stopped', 'cancelled'))
);

-- Each letter once for each request. What is not done is done when the request is resumed.
CREATE TABLE streamjobs.redrive_letters (
    redrive_id  bigint      NOT NULL REFERENCES streamjobs.redrives (id) ON DELETE CASCADE,
    letter_id   bigint      NOT NULL,
    -- The letter's event, which stays readable after the letter was pruned.
    event_id    text,
    -- waiting, done, failed, or skipped: deleted or put back by another request before its turn.
    state       text        NOT NULL DEFAULT 'waiting',
    -- The job's new entry, or why there is none.
    entry_id    text,
    error       text,
    changed_at  timestamptz,
    PRIMARY KEY (redrive_id, letter_id),
    CHECK (state IN ('waiting', 'done', 'failed', 'skipped'))
);

CREATE INDEX redrive_letters_waiting
    ON streamjobs.redrive_letters (redrive_id, letter_id) WHERE state = 'waiting';
CREATE INDEX redrive_letters_by_letter ON streamjobs.redrive_letters (letter_id);
CREATE INDEX redrive_letters_by_event ON streamjobs.redrive_letters (event_id);

-- Dead letters that somebody has to look at.
CREATE VIEW streamjobs.open_dead_letters AS
    SELECT * FROM streamjobs.dead_letters WHERE redriven_at IS NULL AND NOT known_done;

-- One row for each kind of failure, with how often and how long it has been seen.
CREATE VIEW streamjobs.dead_letter_kinds AS
    SELECT kind.*, newest.error AS last_error
    FROM (
        SELECT stream, group_name, event_type, reason, fingerprint,
               count(*) AS letters,
               min(buried_at) AS first_seen,
               max(buried_at) AS last_seen,
               max(id) AS last_id
        FROM streamjobs.open_dead_letters
        GROUP BY stream, group_name, event_type, reason, fingerprint
    ) kind
    JOIN streamjobs.dead_letters newest ON newest.id = kind.last_id;
