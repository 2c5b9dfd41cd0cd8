-- Format 2. What holds for the store as a whole, by name.

CREATE TABLE properties (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    crc INTEGER NOT NULL,
    PRIMARY KEY (name)
) WITHOUT ROWID;

-- The rows of jobs that were pruned while a key named them, sealed as they were.
CREATE TABLE tombstones (
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

CREATE INDEX tombstones_by_end ON tombstones (coalesce(completed_at, 0), job_id);
CREATE INDEX keys_by_job ON keys (job_id);
CREATE INDEX letters_by_jobs ON letters (job_ids);
