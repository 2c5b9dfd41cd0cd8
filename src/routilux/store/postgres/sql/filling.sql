-- :property
SELECT name, value, seal FROM property WHERE name = %s

-- The lock belongs to the connection.
-- :lock
SELECT pg_try_advisory_lock(hashtextextended('routilux filling ' || %s, 0))

-- :any_row
SELECT EXISTS (SELECT FROM worker) OR EXISTS (SELECT FROM job)

-- :empty_worker
DELETE FROM worker

-- :empty_item
DELETE FROM item

-- :empty_note
DELETE FROM note

-- :empty_entry
DELETE FROM entry

-- :empty_job
DELETE FROM job

-- :empty_letter
DELETE FROM letter

-- :empty_key
DELETE FROM key

-- :empty_tombstone
DELETE FROM tombstone

-- :empty_property
DELETE FROM property
