-- What holds for the store as a whole, by name.
CREATE TABLE property (
    name text COLLATE "C" PRIMARY KEY,
    value text NOT NULL,
    seal bigint NOT NULL
);

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
