-- Everything is compared with the clock of the server, the only one that all owners share.

-- Owners that have been silent for a week are forgotten; what they had claimed is free since long.
-- :forget_silent
DELETE FROM owner WHERE expires < clock_timestamp() - interval '7 days'

-- Nobody waits for these any more.
-- :forget_commands
DELETE FROM command WHERE made_at < clock_timestamp() - interval '7 days'

-- :register
WITH new AS (
    INSERT INTO owner (name, host, pid, expires)
    VALUES (%s, %s, %s, clock_timestamp() + make_interval(secs => %s)) RETURNING owner_id
)
INSERT INTO batch (owner_id, number) SELECT owner_id, 0 FROM new RETURNING owner_id

-- :unregister
DELETE FROM owner WHERE owner_id = %s

-- :renew
UPDATE owner SET expires = clock_timestamp() + make_interval(secs => %s) WHERE owner_id = %s

-- The connection that wrote before ends, and with it what it has not committed.
-- :end_writer
SELECT pg_terminate_backend(activity.pid, %(patience)s)
FROM owner JOIN pg_stat_activity AS activity
    ON activity.pid = owner.backend_pid AND activity.backend_start = owner.backend_start
WHERE owner.owner_id = %(owner_id)s AND activity.pid <> pg_backend_pid()

-- :begin_writer
UPDATE owner SET (backend_pid, backend_start) = (
    SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())
WHERE owner_id = %s

-- Takes the workers that no process runs; gives those that were taken. An owner of the same name is this program, started
-- again; "again" takes one once more that this owner has, as after an answer that was lost. In one order for all, so that two processes wait for each other and not crosswise.
-- :take
INSERT INTO lease (worker_id, owner_id, epoch)
SELECT worker_id, %(owner_id)s, epoch
FROM unnest(%(worker_ids)b::text[], %(epochs)b::bigint[]) AS wanted (worker_id, epoch) ORDER BY worker_id COLLATE "C"
ON CONFLICT (worker_id) DO UPDATE SET owner_id = excluded.owner_id, epoch = excluded.epoch
WHERE (%(again)b::bool AND lease.owner_id = excluded.owner_id) OR NOT EXISTS (
    SELECT FROM owner WHERE owner.owner_id = lease.owner_id AND owner.expires > clock_timestamp()
        AND (owner.owner_id = excluded.owner_id OR owner.name IS DISTINCT FROM %(same_name)s))
RETURNING worker_id, epoch

-- :give_up
DELETE FROM lease WHERE worker_id = %s AND epoch = %s

-- :give_back
DELETE FROM lease WHERE worker_id = ANY (%b::text[]) AND owner_id = %b

-- The lock keeps the lease as it is until the end of the transaction: it is not taken over in between.
-- :held
SELECT lease.worker_id FROM unnest(%b::text[], %b::bigint[]) AS held (worker_id, epoch)
JOIN lease ON lease.worker_id = held.worker_id AND lease.epoch = held.epoch
FOR SHARE OF lease

-- :give_up_all
DELETE FROM lease WHERE owner_id = %s

-- :holder
SELECT owner_id, name, host, pid, extract(epoch FROM expires - clock_timestamp())::float8
FROM lease JOIN owner USING (owner_id) WHERE worker_id = %s

-- Not where the server has forgotten a batch that it had acknowledged.
-- :begin_batch
UPDATE batch SET number = %b WHERE owner_id = %b AND number >= %b

-- Waits for a transaction that still writes it.
-- :last_batch
SELECT number FROM batch WHERE owner_id = %s FOR UPDATE
