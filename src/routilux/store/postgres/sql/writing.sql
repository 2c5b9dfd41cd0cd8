-- What a batch writes: one statement for each table. Each array holds one column of the rows.

-- :forget_items
DELETE FROM item WHERE worker_id = ANY (%b::text[])

-- :forget_notes
DELETE FROM note WHERE worker_id = ANY (%b::text[]) AND left(kind, 4) <> 'job.'

-- :forget_entries
DELETE FROM entry WHERE worker_id = ANY (%b::text[]) AND left(kind, 4) <> 'job.'

-- :forget_workers
DELETE FROM worker WHERE worker_id = ANY (%b::text[])

-- :put_workers
INSERT INTO worker (worker_id, flow_id, fingerprint, kind, status, next_number, updated_at, data, seal)
SELECT * FROM unnest(
    %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::bigint[], %b::float8[], %b::bytea[], %b::bigint[])
ON CONFLICT (worker_id) DO UPDATE SET
    flow_id = excluded.flow_id, fingerprint = excluded.fingerprint, kind = excluded.kind, status = excluded.status,
    next_number = excluded.next_number, updated_at = excluded.updated_at, data = excluded.data, seal = excluded.seal

-- :put_items
INSERT INTO item (worker_id, place, number, job_ids, source, time, data, seal)
SELECT * FROM unnest(
    %b::text[], %b::text[], %b::bigint[], %b::text[], %b::text[], %b::float8[], %b::bytea[], %b::bigint[])

-- :take_items
DELETE FROM item USING unnest(%b::text[], %b::text[], %b::bigint[]) AS taken (worker_id, place, number)
WHERE item.worker_id = taken.worker_id AND item.place = taken.place AND item.number = taken.number

-- :put_notes
INSERT INTO note (worker_id, kind, owner, name, data, seal)
SELECT * FROM unnest(%b::text[], %b::text[], %b::text[], %b::text[], %b::bytea[], %b::bigint[])
ON CONFLICT (worker_id, owner, kind, name) DO UPDATE SET data = excluded.data, seal = excluded.seal

-- :remove_notes
DELETE FROM note USING unnest(%b::text[], %b::text[], %b::text[], %b::text[]) AS gone (worker_id, kind, owner, name)
WHERE note.worker_id = gone.worker_id AND note.owner = gone.owner AND note.kind = gone.kind AND note.name = gone.name

-- :put_entries
INSERT INTO entry (worker_id, kind, owner, number, data, seal)
SELECT * FROM unnest(%b::text[], %b::text[], %b::text[], %b::bigint[], %b::bytea[], %b::bigint[])

-- Gives the jobs that were written; the ids of the others are taken. In one order for all, as the keys.
-- :put_jobs
INSERT INTO job (
    job_id, worker_id, flow_id, status, serial, created_at, started_at, completed_at, data, seal, balance)
SELECT * FROM unnest(
    %b::text[], %b::text[], %b::text[], %b::text[], %b::bigint[], %b::float8[], %b::float8[], %b::float8[],
    %b::bytea[], %b::bigint[], %b::bigint[])
    AS new (job_id, worker_id, flow_id, status, serial, created_at, started_at, completed_at, data, seal, balance)
ORDER BY job_id COLLATE "C"
ON CONFLICT (job_id) DO UPDATE SET
    worker_id = excluded.worker_id, flow_id = excluded.flow_id, status = excluded.status, serial = excluded.serial,
    created_at = excluded.created_at, started_at = excluded.started_at, completed_at = excluded.completed_at,
    data = excluded.data, seal = excluded.seal
WHERE job.worker_id = excluded.worker_id AND job.serial = excluded.serial
RETURNING job_id

-- :add_counts
UPDATE job SET items = items + added.number, balance = balance - added.number
FROM unnest(%b::text[], %b::bigint[]) AS added (job_id, number) WHERE job.job_id = added.job_id

-- :put_letters
INSERT INTO letter (worker_id, number, flow_id, place, job_ids, reason, error, time, data, seal)
SELECT * FROM unnest(
    %b::text[], %b::bigint[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::float8[], %b::bytea[],
    %b::bigint[])

-- :remove_letters
DELETE FROM letter USING unnest(%b::text[], %b::bigint[]) AS gone (worker_id, number)
WHERE letter.worker_id = gone.worker_id AND letter.number = gone.number

-- Gives the keys that were free; the others have an owner. In one order for all, so that two processes that write
-- the same keys wait for each other and not crosswise.
-- :put_keys
INSERT INTO key (flow_id, key, worker_id, job_id, digest, created_at, expires_at, seal)
SELECT * FROM unnest(
    %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::float8[], %b::float8[], %b::bigint[])
    AS new (flow_id, key, worker_id, job_id, digest, created_at, expires_at, seal)
ORDER BY flow_id COLLATE "C", key COLLATE "C"
ON CONFLICT (flow_id, key) DO UPDATE SET
    worker_id = excluded.worker_id, job_id = excluded.job_id, digest = excluded.digest,
    created_at = excluded.created_at, expires_at = excluded.expires_at, seal = excluded.seal
WHERE key.expires_at <= excluded.created_at
RETURNING flow_id, key

-- :put_properties
INSERT INTO property (name, value, seal) SELECT * FROM unnest(%b::text[], %b::text[], %b::bigint[])
ON CONFLICT (name) DO UPDATE SET value = excluded.value, seal = excluded.seal

-- :remove_properties
DELETE FROM property WHERE name = ANY (%b::text[])

-- :put_tombstones
INSERT INTO tombstone (job_id, worker_id, flow_id, status, serial, created_at, started_at, completed_at, data, seal)
SELECT * FROM unnest(
    %b::text[], %b::text[], %b::text[], %b::text[], %b::bigint[], %b::float8[], %b::float8[], %b::float8[],
    %b::bytea[], %b::bigint[])

-- Gives the commands that had not been withdrawn.
-- :put_answers
UPDATE command SET answer = done.answer
FROM unnest(%b::text[], %b::text[], %b::bytea[]) AS done (command_id, worker_id, answer)
WHERE command.command_id = done.command_id AND command.worker_id = done.worker_id AND command.answer IS NULL
RETURNING command.command_id

-- :notify
SELECT pg_notify('routilux_' || md5(current_schema()), '')
