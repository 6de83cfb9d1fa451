-- The aggregates of points, which the writer brings up to date at the end of each transaction; see writes.sql.

-- name: add_metrics
-- Adds completed jobs that aren't excluded to the aggregates of their points, one value at a time. Each attempt is
-- named once.
INSERT INTO point_metrics (experiment, point, metric, n, mean, m2, min, max, missing)
SELECT runs.experiment, runs.point, tracked.key, {measured}
FROM (WITH new (experiment, point, replicate, attempt) AS (VALUES :rows) SELECT * FROM new) AS new
CROSS JOIN runs ON runs.experiment = new.experiment AND runs.point = new.point AND runs.replicate = new.replicate
  AND runs.attempt = new.attempt
CROSS JOIN experiments ON experiments.key = runs.experiment
CROSS JOIN json_each(experiments.metrics) AS tracked
LEFT JOIN json_each(runs.metrics) AS measured ON measured.key = tracked.value
WHERE {aggregated}
ON CONFLICT (experiment, point, metric) DO UPDATE SET
  {added};

-- name: clear_metrics
-- Empties the aggregates of points before they are computed again.
UPDATE point_metrics SET n = 0, mean = NULL, m2 = NULL, min = NULL, max = NULL, missing = 0
WHERE (experiment, point) IN (VALUES :rows);

-- name: compute_metrics
-- The same for all jobs of some points, in order.
INSERT INTO point_metrics (experiment, point, metric, n, mean, m2, min, max, missing)
SELECT runs.experiment, runs.point, tracked.key, {measured}
FROM (WITH new (experiment, point) AS (VALUES :rows) SELECT * FROM new) AS new
CROSS JOIN runs ON runs.experiment = new.experiment AND runs.point = new.point
CROSS JOIN experiments ON experiments.key = runs.experiment
CROSS JOIN json_each(experiments.metrics) AS tracked
LEFT JOIN json_each(runs.metrics) AS measured ON measured.key = tracked.value
WHERE {aggregated}
ON CONFLICT (experiment, point, metric) DO UPDATE SET
  {added};
