-- All rows of a table, in the order of its key.

-- :worker
SELECT worker_id, flow_id, fingerprint, kind, status, next_number, updated_at, data, seal
FROM worker ORDER BY worker_id

-- :item
SELECT worker_id, place, number, job_ids, source, time, data, seal FROM item ORDER BY worker_id, place, number

-- :note
SELECT worker_id, kind, owner, name, data, seal FROM note ORDER BY worker_id, owner, kind, name

-- :entry
SELECT worker_id, kind, owner, number, data, seal FROM entry ORDER BY worker_id, owner, kind, number

-- :job
SELECT items, balance, job_id, worker_id, flow_id, status, serial, created_at, started_at, completed_at, data, seal
FROM job ORDER BY job_id

-- :letter
SELECT worker_id, number, flow_id, place, job_ids, reason, error, time, data, seal
FROM letter ORDER BY worker_id, number

-- :key
SELECT flow_id, key, worker_id, job_id, digest, created_at, expires_at, seal FROM key ORDER BY flow_id, key

-- :tombstone
SELECT job_id, worker_id, flow_id, status, serial, created_at, started_at, completed_at, data, seal
FROM tombstone ORDER BY job_id

-- :property
SELECT name, value, seal FROM property ORDER BY name
