-- Format 2. What holds for the store as a whole, by name.

CREATE TABLE properties (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    crc INTEGER NOT NULL,
    PRIMARY KEY (name)
) WITHOUT ROWID;
