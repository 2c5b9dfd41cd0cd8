-- What holds for the store as a whole, by name.
CREATE TABLE property (
    name text COLLATE "C" PRIMARY KEY,
    value text NOT NULL,
    seal bigint NOT NULL
);

-- Epochs of leases are drawn by the processes.
DROP SEQUENCE epoch;
