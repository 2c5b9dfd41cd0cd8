-- Processes that share a schema hear each other on one channel.

-- :ask
WITH asked AS (
    INSERT INTO command (command_id, worker_id, kind, data) VALUES (%b, %b, %b, %b) ON CONFLICT DO NOTHING)
SELECT pg_notify('routilux_' || md5(current_schema()), '')

-- Waits for a batch that answers it.
-- :withdraw
DELETE FROM command WHERE command_id = %b AND answer IS NULL

-- :answers
SELECT command_id, answer FROM command WHERE command_id = ANY (%b::text[]) AND answer IS NOT NULL

-- :forget
DELETE FROM command WHERE command_id = ANY (%b::text[]) AND answer IS NOT NULL

-- :due
SELECT command_id, worker_id, kind, data FROM command
WHERE answer IS NULL AND worker_id = ANY (%b::text[]) AND command_id <> ALL (%b::text[])
ORDER BY kind = 'post', number LIMIT 1000

-- :gone
SELECT name FROM unnest(%b::text[]) AS name WHERE NOT EXISTS (SELECT FROM command WHERE command_id = name)
