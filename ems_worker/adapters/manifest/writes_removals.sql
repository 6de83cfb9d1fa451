-- What the writer runs to remove experiments; see writes.sql.

-- name: insert_removal key=1
-- An experiment is removed: without its plans no query finds it.
INSERT INTO removals (experiment, removed_ms) VALUES :rows;

-- name: drop_plans
-- Deletes all versions of the plan of an experiment.
DELETE FROM plans WHERE experiment IN (VALUES :rows);

-- name: drop_status
-- Deletes the last status of an experiment.
DELETE FROM statuses WHERE experiment IN (VALUES :rows);

-- name: forget_digest
-- The same bytes are no duplicate of the plan of an experiment any more.
UPDATE submissions SET digest = NULL
WHERE digest IS NOT NULL AND verdict = 'accepted'
  AND experiment_id IN (SELECT experiment_id FROM experiments WHERE key IN (VALUES :rows));

-- name: purge_runs
-- Deletes some runs of an experiment.
DELETE FROM runs WHERE (experiment, point, replicate, attempt) IN (
  WITH old (key, many) AS (VALUES :rows)
  SELECT runs.experiment, runs.point, runs.replicate, runs.attempt FROM old CROSS JOIN runs
  WHERE runs.experiment = old.key LIMIT (SELECT many FROM old)
);

-- name: purge_metrics
-- Deletes some aggregates of an experiment.
DELETE FROM point_metrics WHERE (experiment, point, metric) IN (
  WITH old (key, many) AS (VALUES :rows)
  SELECT each.experiment, each.point, each.metric FROM old CROSS JOIN point_metrics AS each
  WHERE each.experiment = old.key LIMIT (SELECT many FROM old)
);

-- name: purge_identities
-- Deletes some identities of points of an experiment.
DELETE FROM point_identities WHERE (experiment, point) IN (
  WITH old (key, many) AS (VALUES :rows)
  SELECT each.experiment, each.point FROM old CROSS JOIN point_identities AS each
  WHERE each.experiment = old.key LIMIT (SELECT many FROM old)
);

-- name: purge_points
-- Deletes some points of an experiment, which has no runs any more.
DELETE FROM points WHERE (experiment, point) IN (
  WITH old (key, many) AS (VALUES :rows)
  SELECT each.experiment, each.point FROM old CROSS JOIN points AS each
  WHERE each.experiment = old.key LIMIT (SELECT many FROM old)
);
