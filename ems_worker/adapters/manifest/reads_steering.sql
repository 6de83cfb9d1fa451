-- What the read connections run for changes that people request. queries.py says what stands in braces.

-- name: plan_version
-- The version of an experiment's plan that has this identity.
SELECT version FROM plans WHERE experiment = :key AND plan_sha = :plan_sha LIMIT 1;

-- name: plan
-- One version of an experiment's plan.
SELECT plan FROM plans WHERE experiment = :key AND version = :version;

-- name: commonest_error
-- The kind of error with which most jobs of an experiment ended, its commonest message, and how many jobs have both.
WITH failed AS MATERIALIZED (
  SELECT coalesce(error_kind, 'metrics_missing') AS error_kind, error_message, count(*) AS jobs FROM runs
  WHERE experiment = :key AND current = 1 AND excluded IS NULL
    AND (state IN ('failed', 'lost') OR waiting = 'missing')
  GROUP BY 1, 2
)
SELECT error_kind, error_message, jobs FROM failed
WHERE error_kind = (SELECT error_kind FROM failed GROUP BY 1 ORDER BY sum(jobs) DESC, 1 LIMIT 1)
ORDER BY jobs DESC, error_message LIMIT 1;

-- name: jobs_after
-- All attempts of the jobs after a (point, replicate), in order. Each job has a first attempt.
WITH next AS MATERIALIZED (
  SELECT point, replicate FROM runs
  WHERE experiment = :key AND (point, replicate) > (:point, :replicate) AND attempt = 1
  ORDER BY point, replicate LIMIT :limit
)
SELECT {runs.columns} FROM next CROSS JOIN runs
WHERE runs.experiment = :key AND runs.point = next.point AND runs.replicate = next.replicate
ORDER BY runs.point, runs.replicate, runs.attempt;

-- name: awaiting_jobs
-- All attempts of the jobs after a (point, replicate) that wait for metrics, in order.
WITH next AS MATERIALIZED (
  SELECT point, replicate FROM runs
  WHERE experiment = :key AND waiting = 'awaiting' AND (point, replicate) > (:point, :replicate)
  ORDER BY point, replicate LIMIT :limit
)
SELECT {runs.columns} FROM next CROSS JOIN runs
WHERE runs.experiment = :key AND runs.point = next.point AND runs.replicate = next.replicate
ORDER BY runs.point, runs.replicate, runs.attempt;

-- name: change_from
-- The change that a request made of the first experiment from this one on.
SELECT {columns} FROM changes WHERE request_id = :request_id AND experiment >= :key ORDER BY experiment LIMIT 1;

-- name: open_changes
-- Changes of an experiment that are not carried out completely, in order.
SELECT {columns} FROM changes WHERE experiment = :key AND applied_ms IS NULL ORDER BY number;

-- name: unpublished_changes
-- Changes with a document that is not published, in order.
SELECT {columns} FROM changes WHERE published < 1 + (applied_ms IS NOT NULL) ORDER BY number;

-- name: experiment_id
-- The id of an experiment.
SELECT experiment_id FROM experiments WHERE key = :key;

-- name: latest_changes
-- The last changes of an experiment, newest first.
SELECT {columns} FROM changes WHERE experiment = :key ORDER BY number DESC LIMIT :limit;

-- name: publisher
-- The publisher of an experiment's plan.
SELECT publisher FROM experiments JOIN submissions USING (experiment_id)
WHERE experiments.key = :key AND submissions.verdict = 'accepted' LIMIT 1;

-- name: unidentified
-- Points of an experiment without an identity, in order, after a point. Points get their identities in their order, so
-- that these are the last ones: a search point by point would take a second for a million.
SELECT {points.columns} FROM points
WHERE points.experiment = :key AND points.point > max(:after_point, coalesce(
  (SELECT max(known.point) FROM point_identities AS known WHERE known.experiment = :key), -1
)) ORDER BY points.point LIMIT :limit;

-- name: matched
-- Points with these digests that a version of the plan doesn't have, in order, so many of each at most.
WITH known AS MATERIALIZED (
  SELECT digest, point, row_number() OVER (PARTITION BY digest ORDER BY point) AS place
  FROM json_each(:digests) AS wanted CROSS JOIN point_identities
  WHERE experiment = :key AND digest = wanted.value AND version < :version
)
SELECT digest, point,
  (SELECT count(*) FROM runs
    WHERE experiment = :key AND runs.point = known.point AND attempt = 1) AS replicates,
  (SELECT CASE WHEN count(excluded) = count(*) THEN max(excluded) END FROM runs
    WHERE experiment = :key AND runs.point = known.point AND current = 1) AS excluded
FROM known WHERE place <= :limit ORDER BY point;

-- name: withdrawn
-- All attempts of the jobs after a (point, replicate) whose points a version of the plan doesn't have, in order.
WITH lacking AS MATERIALIZED (
  -- The first of them may have no more jobs after the position.
  SELECT point FROM point_identities
  WHERE experiment = :key AND point >= :point AND version < :version ORDER BY point LIMIT :limit + 1
),
next AS MATERIALIZED (
  SELECT runs.point, replicate FROM lacking CROSS JOIN runs
  WHERE runs.experiment = :key AND runs.point = lacking.point AND attempt = 1
    AND (lacking.point > :point OR replicate > :replicate)
  ORDER BY runs.point, replicate LIMIT :limit
)
SELECT {runs.columns} FROM next CROSS JOIN runs
WHERE runs.experiment = :key AND runs.point = next.point AND runs.replicate = next.replicate
ORDER BY runs.point, runs.replicate, runs.attempt;

-- name: returned
-- The same of jobs that are excluded for a reason and whose points a version of the plan has.
WITH next AS MATERIALIZED (
  SELECT point, replicate FROM runs
  WHERE experiment = :key AND (point, replicate) > (:point, :replicate) AND attempt = 1 AND excluded = :reason
    AND EXISTS (
      SELECT 1 FROM point_identities AS known
      WHERE known.experiment = :key AND known.point = runs.point AND version = :version
    )
  ORDER BY point, replicate LIMIT :limit
)
SELECT {runs.columns} FROM next CROSS JOIN runs
WHERE runs.experiment = :key AND runs.point = next.point AND runs.replicate = next.replicate
ORDER BY runs.point, runs.replicate, runs.attempt;
