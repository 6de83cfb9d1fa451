-- What the read connections run about removed and old experiments. queries.py says what stands in braces.

-- name: removed_at
-- When the experiment with this id was removed.
SELECT removed_ms FROM experiments JOIN removals ON removals.experiment = experiments.key
WHERE experiment_id = :experiment_id;

-- name: open_removals
-- Removals of which not everything is deleted yet, in order.
SELECT {columns} FROM changes WHERE applied_ms IS NULL AND verb = :verb ORDER BY number;

-- name: ended_before
-- Experiments that ended before a time and have nothing left to publish, the oldest end first.
SELECT {columns} FROM experiments
WHERE finished_ms < :before_ms AND published_seq = ended_seq AND published_revision = revision
  AND NOT EXISTS (SELECT 1 FROM removals WHERE removals.experiment = experiments.key)
ORDER BY finished_ms LIMIT :limit;

-- name: bytes_of
-- About how many bytes an experiment takes: its plans, and its points and jobs as far as the first ones tell.
SELECT coalesce((SELECT sum(length(plan) + coalesce(length(base), 0)) FROM plans WHERE experiment = experiments.key), 0)
  + coalesce((SELECT length(document) FROM statuses WHERE experiment = experiments.key), 0)
  + expanded_points * coalesce((
      SELECT avg(20 + length(params) + coalesce(length(labels), 0))
      FROM (SELECT * FROM points WHERE experiment = experiments.key LIMIT :sample)
    ), 0)
  + jobs * coalesce((
      SELECT avg(60 + coalesce(length(metrics), 0) + coalesce(length(artifacts), 0) + coalesce(length(error_message), 0))
      FROM (SELECT * FROM runs WHERE experiment = experiments.key LIMIT :sample)
    ), 0)
FROM experiments WHERE key = :key;
