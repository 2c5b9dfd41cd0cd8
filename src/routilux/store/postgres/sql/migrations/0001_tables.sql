-- Texts are compared byte by byte, which for UTF-8 is the order of Python's texts. Times are seconds since the epoch.
-- "seal" is a check sum over the other columns of what a row held when it was written.

CREATE SEQUENCE epoch;

-- A store that is open somewhere. It is alive until "expires", which it moves on again and again. "backend_pid" and
-- "backend_start" name the connection that it writes on.
CREATE TABLE owner (
    owner_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    host text NOT NULL,
    pid bigint NOT NULL,
    expires timestamptz NOT NULL,
    backend_pid integer,
    backend_start timestamptz
);

-- Who runs a worker. Each claim has an epoch of its own, which no other claim ever had.
CREATE TABLE lease (
    worker_id text COLLATE "C" PRIMARY KEY,
    owner_id bigint NOT NULL REFERENCES owner ON DELETE CASCADE,
    epoch bigint NOT NULL
);
CREATE INDEX lease_of_owner ON lease (owner_id);

-- The number of the last batch that an owner has written: part of that batch, so it tells whether the batch is there.
CREATE TABLE batch (
    owner_id bigint PRIMARY KEY REFERENCES owner ON DELETE CASCADE,
    number bigint NOT NULL
) WITH (fillfactor = 10);

CREATE TABLE worker (
    worker_id text COLLATE "C" PRIMARY KEY,
    flow_id text COLLATE "C" NOT NULL,
    fingerprint text NOT NULL,
    kind text NOT NULL,
    status text NOT NULL,
    next_number bigint NOT NULL,
    updated_at double precision NOT NULL,
    data bytea NOT NULL,
    seal bigint NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX worker_stopped ON worker (worker_id) WHERE status = 'stopped';

CREATE TABLE item (
    worker_id text COLLATE "C" NOT NULL,
    place text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    job_ids text NOT NULL,
    source text NOT NULL,
    time double precision NOT NULL,
    data bytea NOT NULL,
    seal bigint NOT NULL,
    PRIMARY KEY (worker_id, place, number)
);

CREATE TABLE note (
    worker_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    owner text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    data bytea NOT NULL,
    seal bigint NOT NULL,
    PRIMARY KEY (worker_id, owner, kind, name)
) WITH (fillfactor = 50);

CREATE TABLE entry (
    worker_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    owner text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    data bytea NOT NULL,
    seal bigint NOT NULL,
    PRIMARY KEY (worker_id, owner, kind, number)
);

-- "items" counts the stored items of the job. It changes without the rest, and has "balance" in place of a seal: the
-- two add up to the check sum of the id.
CREATE TABLE job (
    job_id text COLLATE "C" PRIMARY KEY,
    worker_id text COLLATE "C" NOT NULL,
    flow_id text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    serial bigint NOT NULL,
    created_at double precision NOT NULL,
    started_at double precision,
    completed_at double precision,
    data bytea NOT NULL,
    seal bigint NOT NULL,
    items bigint NOT NULL DEFAULT 0,
    balance bigint NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX job_in_order ON job (created_at, job_id);
CREATE INDEX job_of_worker ON job (worker_id, created_at, job_id);
CREATE INDEX job_open ON job (worker_id, created_at, job_id) WHERE status IN ('pending', 'running');
CREATE INDEX job_finished ON job ((coalesce(completed_at, 0)), job_id) WHERE status NOT IN ('pending', 'running');

CREATE TABLE letter (
    worker_id text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    flow_id text NOT NULL,
    place text NOT NULL,
    job_ids text NOT NULL,
    reason text NOT NULL,
    error text,
    time double precision NOT NULL,
    data bytea NOT NULL,
    seal bigint NOT NULL,
    PRIMARY KEY (worker_id, number)
);

CREATE TABLE key (
    flow_id text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    worker_id text NOT NULL,
    job_id text NOT NULL,
    digest text NOT NULL,
    created_at double precision NOT NULL,
    expires_at double precision NOT NULL,
    seal bigint NOT NULL,
    PRIMARY KEY (flow_id, key)
);
CREATE INDEX key_expiry ON key (expires_at);
