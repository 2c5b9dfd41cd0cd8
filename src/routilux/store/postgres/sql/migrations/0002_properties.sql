-- What holds for the store as a whole, by name.
CREATE TABLE property (
    name text COLLATE "C" PRIMARY KEY,
    value text NOT NULL,
    seal bigint NOT NULL
);

-- The rows of jobs that were pruned while a key named them, sealed as they were.
CREATE TABLE tombstone (
    job_id text COLLATE "C" PRIMARY KEY,
    worker_id text COLLATE "C" NOT NULL,
    flow_id text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    serial bigint NOT NULL,
    created_at double precision NOT NULL,
    started_at double precision,
    completed_at double precision,
    data bytea NOT NULL,
    seal bigint NOT NULL
);
CREATE INDEX tombstone_by_end ON tombstone ((coalesce(completed_at, 0)), job_id);
CREATE INDEX key_of_job ON key (job_id);
CREATE INDEX letter_of_jobs ON letter (job_ids);
-- Epochs of leases are drawn by the processes.
DROP SEQUENCE epoch;

-- What a process asks of the one that runs a worker. A row waits until "answer" is written, or it is deleted.
CREATE TABLE command (
    command_id text COLLATE "C" PRIMARY KEY,
    number bigint GENERATED ALWAYS AS IDENTITY,
    worker_id text COLLATE "C" NOT NULL,
    kind text NOT NULL,
    data bytea NOT NULL,
    made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    answer bytea
);
CREATE INDEX command_due ON command (worker_id, number) WHERE answer IS NULL;
