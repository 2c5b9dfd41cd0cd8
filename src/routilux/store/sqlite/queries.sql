-- Every statement of the store, by name. What stands in braces is repeated for each row of a chunk.
-- A prefix and the last part of a key, as in "worker_id = ? AND place = ? AND number IN (...)", is what SQLite looks up
-- row by row; for "(worker_id, place, number) IN (VALUES ...)" it scans the table.

-- name: workers_in
INSERT OR REPLACE INTO workers (worker_id, flow_id, fingerprint, kind, status, next_number, updated_at, data, crc)
VALUES {(?, ?, ?, ?, ?, ?, ?, ?, ?)}

-- name: items_in
INSERT INTO items (worker_id, place, number, job_ids, source, time, data, crc)
VALUES {(?, ?, ?, ?, ?, ?, ?, ?)}

-- name: items_out
DELETE FROM items WHERE worker_id = ? AND place = ? AND number IN ({?})

-- name: notes_in
INSERT OR REPLACE INTO notes (worker_id, kind, owner, name, data, crc)
VALUES {(?, ?, ?, ?, ?, ?)}

-- name: notes_out
DELETE FROM notes WHERE worker_id = ? AND kind = ? AND owner = ? AND name IN ({?})

-- name: entries_in
INSERT INTO entries (worker_id, kind, owner, number, data, crc)
VALUES {(?, ?, ?, ?, ?, ?)}

-- name: jobs_in
INSERT INTO jobs (job_id, worker_id, flow_id, status, serial, created_at, started_at, completed_at, data, crc)
VALUES {(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)}
ON CONFLICT (job_id) DO UPDATE SET
    worker_id = excluded.worker_id, flow_id = excluded.flow_id, status = excluded.status, serial = excluded.serial,
    created_at = excluded.created_at, started_at = excluded.started_at, completed_at = excluded.completed_at,
    data = excluded.data, crc = excluded.crc
WHERE worker_id = excluded.worker_id AND serial = excluded.serial

-- name: owners_of_jobs
SELECT job_id, worker_id, serial FROM jobs WHERE job_id IN ({?})

-- name: counts_in
INSERT INTO counts (job_id, items, balance)
VALUES {(?, ?, ?)}
ON CONFLICT (job_id) DO UPDATE SET items = items + excluded.items, balance = balance - excluded.items

-- name: letters_in
INSERT INTO letters (worker_id, number, flow_id, place, job_ids, reason, error, time, data, crc)
VALUES {(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)}

-- name: letters_out
DELETE FROM letters WHERE worker_id = ? AND number IN ({?})

-- name: keys_in
INSERT OR REPLACE INTO keys (flow_id, key, worker_id, job_id, digest, created_at, expires_at, crc)
VALUES {(?, ?, ?, ?, ?, ?, ?, ?)}

-- name: keys_out
DELETE FROM keys WHERE flow_id = ? AND key IN ({?})

-- name: keys_of
SELECT flow_id, key, worker_id, job_id, digest, created_at, expires_at, crc
FROM keys WHERE flow_id = ? AND key IN ({?})

-- name: tombstones_in
INSERT INTO tombstones
    (job_id, worker_id, flow_id, status, serial, created_at, started_at, completed_at, data, crc)
VALUES {(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)}

-- name: properties_in
INSERT OR REPLACE INTO properties (name, value, crc)
VALUES {(?, ?, ?)}

-- name: properties_out
DELETE FROM properties WHERE name IN ({?})

-- name: properties
SELECT name, value, crc FROM properties ORDER BY name

-- name: forget_items
DELETE FROM items WHERE worker_id IN ({?})

-- name: forget_notes
DELETE FROM notes WHERE worker_id IN ({?}) AND substr(kind, 1, 4) <> 'job.'

-- name: forget_entries
DELETE FROM entries WHERE worker_id IN ({?}) AND substr(kind, 1, 4) <> 'job.'

-- name: forget_workers
DELETE FROM workers WHERE worker_id IN ({?})

-- name: advance
UPDATE store SET batch = ?, clean = ?, crc = ?

-- name: state
SELECT id, batch, clean, crc FROM store

-- name: begin_state
INSERT INTO store (one, id, batch, clean, crc) VALUES (1, ?, ?, ?, ?)


-- name: worker
SELECT worker_id, flow_id, fingerprint, kind, status, next_number, updated_at, data, crc
FROM workers WHERE worker_id = ?

-- name: workers
SELECT worker_id, flow_id, fingerprint, kind, status, next_number, updated_at, data, crc
FROM workers ORDER BY worker_id

-- name: notes
SELECT worker_id, kind, owner, name, data, crc
FROM notes WHERE worker_id = ? ORDER BY kind, owner, name

-- name: notes_without_jobs
SELECT worker_id, kind, owner, name, data, crc
FROM notes WHERE worker_id = ? AND NOT (kind >= 'job.' AND kind < 'job/')
AND NOT (kind >= 'item.' AND kind < 'item/') ORDER BY kind, owner, name

-- name: notes_between
SELECT worker_id, kind, owner, name, data, crc
FROM notes WHERE worker_id = ? AND kind = ? AND owner = ? AND name > ? AND name < ? ORDER BY name LIMIT ?

-- name: notes_of_job
SELECT worker_id, kind, owner, name, data, crc
FROM notes WHERE worker_id = ? AND owner = ? AND kind >= 'job.' AND kind < 'job/' ORDER BY kind, name

-- name: newest_entries
SELECT worker_id, kind, owner, number, data, crc
FROM entries WHERE worker_id = ? AND kind = ? AND owner = ? ORDER BY number DESC LIMIT ?

-- name: items
SELECT worker_id, place, number, job_ids, source, time, data, crc
FROM items WHERE worker_id = ? AND place = ? AND number > ? ORDER BY number LIMIT ?

-- name: items_of
SELECT worker_id, place, number, job_ids, source, time, data, crc
FROM items WHERE worker_id = ? AND place = ? AND number IN ({?})

-- name: last_item
SELECT worker_id, place, number, job_ids, source, time, data, crc
FROM items WHERE worker_id = ? AND place = ? ORDER BY number DESC LIMIT 1

-- name: places
WITH RECURSIVE found (place) AS (
    SELECT min(place) FROM items WHERE worker_id = ?1
    UNION ALL
    SELECT (SELECT min(place) FROM items WHERE worker_id = ?1 AND place > found.place)
    FROM found WHERE found.place IS NOT NULL
)
SELECT place FROM found WHERE place IS NOT NULL

-- name: job
SELECT job_id, worker_id, flow_id, status, serial, created_at, started_at, completed_at, data, crc, items, balance
FROM jobs LEFT JOIN counts USING (job_id) WHERE job_id = ?

-- name: jobs
SELECT job_id, worker_id, flow_id, status, serial, created_at, started_at, completed_at, data, crc, items, balance
FROM jobs LEFT JOIN counts USING (job_id)
WHERE [conditions] ORDER BY created_at, job_id LIMIT ?

-- name: tombstone
SELECT job_id, worker_id, flow_id, status, serial, created_at, started_at, completed_at, data, crc, NULL, NULL
FROM tombstones WHERE job_id = ?

-- name: letters
SELECT worker_id, number, flow_id, place, job_ids, reason, error, time, data, crc
FROM letters ORDER BY time, worker_id, number

-- name: letters_of
SELECT worker_id, number, flow_id, place, job_ids, reason, error, time, data, crc
FROM letters WHERE worker_id = ? ORDER BY time, number


-- name: expired_keys
SELECT flow_id, key FROM keys WHERE expires_at <= ? ORDER BY expires_at LIMIT ?

-- name: count_finished
SELECT count(*) FROM jobs WHERE status NOT IN ('pending', 'running')

-- name: count_finished_before
SELECT count(*) FROM jobs WHERE status NOT IN ('pending', 'running') AND coalesce(completed_at, 0) < ?

-- name: oldest_finished
SELECT worker_id, job_id, coalesce(items, 0) > 0
FROM (SELECT worker_id, job_id, completed_at FROM jobs WHERE status NOT IN ('pending', 'running')
      ORDER BY coalesce(completed_at, 0), job_id LIMIT ?)
LEFT JOIN counts USING (job_id)

-- name: jobs_of_letters
SELECT DISTINCT job_ids FROM letters

-- name: bury
INSERT OR REPLACE INTO tombstones
SELECT job_id, worker_id, flow_id, status, serial, created_at, started_at, completed_at, data, crc
FROM jobs WHERE job_id IN ({?}) AND EXISTS (SELECT 1 FROM keys WHERE keys.job_id = jobs.job_id)

-- name: outlived_tombstones
SELECT job_id FROM (SELECT job_id FROM tombstones ORDER BY coalesce(completed_at, 0), job_id LIMIT ?) AS oldest
WHERE NOT EXISTS (SELECT 1 FROM keys WHERE keys.job_id = oldest.job_id)

-- name: tombstones_out
DELETE FROM tombstones WHERE job_id IN ({?})

-- name: jobs_out
DELETE FROM jobs WHERE job_id IN ({?})

-- name: counts_out
DELETE FROM counts WHERE job_id IN ({?})

-- name: notes_of_jobs_out
DELETE FROM notes WHERE kind >= 'job.' AND kind < 'job/' AND worker_id = ? AND owner IN ({?})

-- name: entries_of_jobs_out
DELETE FROM entries WHERE kind >= 'job.' AND kind < 'job/' AND worker_id = ? AND owner IN ({?})

-- name: stopped_without_jobs
SELECT worker_id, next_number FROM workers
WHERE status = 'stopped' AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.worker_id = workers.worker_id)
ORDER BY worker_id LIMIT ?
