-- Rows that another process works on are left for the next time.

-- :expired_keys
DELETE FROM key USING (
    SELECT flow_id, key FROM key WHERE expires_at <= %(now)s ORDER BY expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
) AS old WHERE key.flow_id = old.flow_id AND key.key = old.key

-- The oldest finished jobs of which no items are stored: those that ended before a time, and those beyond the newest so
-- many. They are locked before the letters are read: what a letter names from then on had an item until then.
-- :finished_jobs
SELECT worker_id, job_id, coalesce(completed_at, 0) FROM job
WHERE status NOT IN ('pending', 'running') AND items <= 0
  AND (coalesce(completed_at, 0), job_id) > (%(time)s, %(job_id)s)
  AND (coalesce(completed_at, 0) < %(before)s OR (coalesce(completed_at, 0), job_id) <= (
    SELECT coalesce(completed_at, 0), job_id FROM job WHERE status NOT IN ('pending', 'running')
    ORDER BY coalesce(completed_at, 0) DESC, job_id DESC OFFSET %(keep)s LIMIT 1))
ORDER BY coalesce(completed_at, 0), job_id LIMIT %(limit)s
FOR UPDATE SKIP LOCKED

-- :jobs_of_letters
SELECT DISTINCT job_ids FROM letter

-- :bury
INSERT INTO tombstone (job_id, worker_id, flow_id, status, serial, created_at, started_at, completed_at, data, seal)
SELECT job_id, worker_id, flow_id, status, serial, created_at, started_at, completed_at, data, seal
FROM job WHERE job_id = ANY (%b::text[]) AND EXISTS (SELECT FROM key WHERE key.job_id = job.job_id)

-- :tombstones
DELETE FROM tombstone WHERE job_id = ANY (%b::text[])

-- :outlived_tombstones
DELETE FROM tombstone USING (
    SELECT job_id FROM tombstone ORDER BY coalesce(completed_at, 0), job_id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
) AS oldest
WHERE tombstone.job_id = oldest.job_id AND NOT EXISTS (SELECT FROM key WHERE key.job_id = oldest.job_id)

-- :notes_of_jobs
DELETE FROM note USING unnest(%b::text[], %b::text[]) AS old (worker_id, job_id)
WHERE note.worker_id = old.worker_id AND note.owner = old.job_id AND note.kind ^@ 'job.'

-- :entries_of_jobs
DELETE FROM entry USING unnest(%b::text[], %b::text[]) AS old (worker_id, job_id)
WHERE entry.worker_id = old.worker_id AND entry.owner = old.job_id AND entry.kind ^@ 'job.'

-- :jobs
DELETE FROM job WHERE job_id = ANY (%b::text[])

-- The lock keeps off a process that would write the worker anew.
-- :stopped_workers
SELECT worker_id, next_number FROM worker
WHERE status = 'stopped' AND NOT EXISTS (SELECT FROM job WHERE job.worker_id = worker.worker_id)
ORDER BY worker_id LIMIT %(limit)s
FOR UPDATE SKIP LOCKED

-- The first of them makes the row, which the next statement then locks: two processes raise the floor one after the other.
-- :begin_floor
INSERT INTO property (name, value, seal) SELECT * FROM unnest(%b::text[], %b::text[], %b::bigint[])
ON CONFLICT DO NOTHING

-- :floor
SELECT name, value, seal FROM property WHERE name = %s FOR UPDATE
