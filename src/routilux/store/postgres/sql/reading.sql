-- Every row comes with its seal at the end.

-- :worker
SELECT worker_id, flow_id, fingerprint, kind, status, next_number, updated_at, data, seal
FROM worker WHERE worker_id = %s

-- :workers
SELECT worker_id, flow_id, fingerprint, kind, status, next_number, updated_at, data, seal
FROM worker ORDER BY worker_id

-- :notes
SELECT worker_id, kind, owner, name, data, seal FROM note WHERE worker_id = %s ORDER BY kind, owner, name

-- :notes_without_jobs
SELECT worker_id, kind, owner, name, data, seal FROM note
WHERE worker_id = %s AND NOT (kind >= 'job.' AND kind < 'job/') AND NOT (kind >= 'item.' AND kind < 'item/')
ORDER BY kind, owner, name

-- :notes_between
SELECT worker_id, kind, owner, name, data, seal FROM note
WHERE worker_id = %s AND kind = %s AND owner = %s AND name > %s AND name < %s ORDER BY name LIMIT %s

-- :notes_of_job
SELECT worker_id, kind, owner, name, data, seal FROM note
WHERE worker_id = %s AND owner = %s AND kind >= 'job.' AND kind < 'job/' ORDER BY kind, name

-- :entries
SELECT worker_id, kind, owner, number, data, seal
FROM entry WHERE worker_id = %s AND kind = %s AND owner = %s ORDER BY number DESC LIMIT %s

-- :items
SELECT worker_id, place, number, job_ids, source, time, data, seal
FROM item WHERE worker_id = %s AND place = %s AND number > %s ORDER BY number LIMIT %s

-- :items_of
SELECT item.worker_id, item.place, item.number, job_ids, source, time, data, seal
FROM unnest(%b::text[], %b::text[], %b::bigint[]) WITH ORDINALITY AS asked (worker_id, place, number, position)
JOIN item ON item.worker_id = asked.worker_id AND item.place = asked.place AND item.number = asked.number
ORDER BY position

-- :tail
SELECT number FROM item WHERE worker_id = %s AND place = %s ORDER BY number DESC LIMIT 1

-- From each place straight to the next, past all of its items.
-- :places
WITH RECURSIVE found (place) AS (
    (SELECT place FROM item WHERE worker_id = %(worker_id)s ORDER BY place LIMIT 1)
    UNION ALL
    SELECT (
        SELECT item.place FROM item WHERE worker_id = %(worker_id)s AND item.place > found.place
        ORDER BY item.place LIMIT 1)
    FROM found WHERE found.place IS NOT NULL
)
SELECT place FROM found WHERE place IS NOT NULL

-- :job
SELECT items, balance, job_id, worker_id, flow_id, status, serial, created_at, started_at, completed_at, data, seal
FROM job WHERE job_id = %s

-- :tombstone
SELECT job_id, worker_id, flow_id, status, serial, created_at, started_at, completed_at, data, seal
FROM tombstone WHERE job_id = %s

-- Planned anew for every call: a condition that is not asked for falls away then, and an index for the rest is found.
-- :jobs
SELECT items, balance, job_id, worker_id, flow_id, status, serial, created_at, started_at, completed_at, data, seal
FROM job
WHERE (%(worker_id)s::text IS NULL OR worker_id = %(worker_id)s)
  AND (%(flow_id)s::text IS NULL OR flow_id = %(flow_id)s)
  AND (%(statuses)s::text[] IS NULL OR status = ANY (%(statuses)s))
  AND (%(has_items)s::bool IS DISTINCT FROM false OR items = 0)
  AND (%(has_items)s::bool IS DISTINCT FROM true OR items > 0)
  AND (%(created_after)s::float8 IS NULL OR (created_at, job_id) > (%(created_after)s, %(job_after)s))
ORDER BY created_at, job_id LIMIT %(limit)s

-- :letters
SELECT worker_id, number, flow_id, place, job_ids, reason, error, time, data, seal
FROM letter WHERE %(worker_id)s::text IS NULL OR worker_id = %(worker_id)s
ORDER BY time, worker_id, number

-- :properties
SELECT name, value, seal FROM property ORDER BY name

-- :key
SELECT flow_id, key, worker_id, job_id, digest, created_at, expires_at, seal
FROM key WHERE flow_id = %s AND key = %s AND expires_at > %s
