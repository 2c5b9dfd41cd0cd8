-- Format 1. The primary key is the only tree of most tables, so an item costs one entry. Columns without a type keep
-- numbers exactly as they were given. "crc" is a CRC-32 over all other columns of its row.

CREATE TABLE store (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id TEXT NOT NULL,
    batch INTEGER NOT NULL,   -- rises by one with every transaction
    clean INTEGER NOT NULL,   -- 1: closed in order, so that everything is in the main file
    crc INTEGER NOT NULL
);

CREATE TABLE workers (
    worker_id TEXT NOT NULL,
    flow_id TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    kind TEXT NOT NULL,
    status TEXT NOT NULL,
    next_number INTEGER NOT NULL,
    updated_at NOT NULL,
    data BLOB NOT NULL,
    crc INTEGER NOT NULL,
    PRIMARY KEY (worker_id)
) WITHOUT ROWID;

CREATE TABLE items (
    worker_id TEXT NOT NULL,
    place TEXT NOT NULL,
    number INTEGER NOT NULL,
    job_ids TEXT NOT NULL,
    source TEXT NOT NULL,
    time NOT NULL,
    data BLOB NOT NULL,
    crc INTEGER NOT NULL,
    PRIMARY KEY (worker_id, place, number)
) WITHOUT ROWID;

-- The owner stands before the kind: what belongs to a job lies together and is removed together.
CREATE TABLE notes (
    worker_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    data BLOB NOT NULL,
    crc INTEGER NOT NULL,
    PRIMARY KEY (worker_id, owner, kind, name)
) WITHOUT ROWID;

CREATE TABLE entries (
    worker_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    kind TEXT NOT NULL,
    number INTEGER NOT NULL,
    data BLOB NOT NULL,
    crc INTEGER NOT NULL,
    PRIMARY KEY (worker_id, owner, kind, number)
) WITHOUT ROWID;

CREATE TABLE jobs (
    job_id TEXT NOT NULL,
    worker_id TEXT NOT NULL,
    flow_id TEXT NOT NULL,
    status TEXT NOT NULL,
    serial INTEGER NOT NULL,
    created_at NOT NULL,
    started_at,
    completed_at,
    data BLOB NOT NULL,
    crc INTEGER NOT NULL,
    PRIMARY KEY (job_id)
) WITHOUT ROWID;

CREATE INDEX jobs_by_creation ON jobs (created_at, job_id);
CREATE INDEX jobs_by_worker ON jobs (worker_id, created_at, job_id);
CREATE INDEX jobs_by_end ON jobs (coalesce(completed_at, 0), job_id) WHERE status NOT IN ('pending', 'running');

-- Apart from the jobs, because it changes with every batch and a job may be large. items + balance is the CRC-32 of the
-- job's id, whatever is added to one and taken from the other.
CREATE TABLE counts (
    job_id TEXT NOT NULL,
    items INTEGER NOT NULL,
    balance INTEGER NOT NULL,
    PRIMARY KEY (job_id)
) WITHOUT ROWID;

CREATE TABLE letters (
    worker_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    flow_id TEXT NOT NULL,
    place TEXT NOT NULL,
    job_ids TEXT NOT NULL,
    reason TEXT NOT NULL,
    error TEXT,
    time NOT NULL,
    data BLOB NOT NULL,
    crc INTEGER NOT NULL,
    PRIMARY KEY (worker_id, number)
) WITHOUT ROWID;

CREATE TABLE keys (
    flow_id TEXT NOT NULL,
    key TEXT NOT NULL,
    worker_id TEXT NOT NULL,
    job_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    created_at NOT NULL,
    expires_at NOT NULL,
    crc INTEGER NOT NULL,
    PRIMARY KEY (flow_id, key)
) WITHOUT ROWID;

CREATE INDEX keys_by_expiry ON keys (expires_at);
