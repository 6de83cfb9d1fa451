-- What the writer runs for changes that people request; see writes.sql.

-- name: insert_plan_version key=1
-- Records a further version of an experiment's plan. The base configuration is that of the first.
INSERT INTO plans
  (experiment, version, plan_sha, language, hold, keep_open, description, tags, parameters, traceparent, plan, headings)
VALUES :rows;

-- name: grow_experiment key=1
-- How many points and jobs an experiment has now that its plan was extended, guarded by what it had.
UPDATE experiments SET
  points = new.points,
  jobs = new.jobs,
  replicates = new.replicates,
  expanded_points = new.expanded_points,
  plan_sha = new.plan_sha
FROM (
  WITH new (key, expected_points, expected_jobs, points, jobs, replicates, expanded_points, plan_sha)
  AS (VALUES :rows) SELECT * FROM new
) AS new
WHERE experiments.key = new.key AND experiments.points = new.expected_points
  AND experiments.jobs = new.expected_jobs;

-- name: insert_change key=2
-- Records a change. Its number is the next one.
INSERT INTO changes
  (request_id, experiment, verb, request, received_ms, language, changed, state, round, revision, judged_point, judged_replicate,
   counts, added, withdrawn, unchanged, refused, applied_ms, published)
VALUES :rows;

-- name: update_change key=1
-- How far a change is carried out. How many of its documents are published never decreases.
UPDATE changes SET
  changed = new.changed,
  state = new.state,
  round = new.round,
  revision = new.revision,
  judged_point = new.judged_point,
  judged_replicate = new.judged_replicate,
  counts = new.counts,
  added = new.added,
  withdrawn = new.withdrawn,
  unchanged = new.unchanged,
  refused = new.refused,
  applied_ms = new.applied_ms,
  published = max(changes.published, new.published)
FROM (
  WITH new
  (number, changed, state, round, revision, judged_point, judged_replicate, counts, added, withdrawn, unchanged,
   refused, applied_ms, published)
  AS (VALUES :rows) SELECT * FROM new
) AS new
WHERE changes.number = new.number;

-- name: publish_change key=1
-- So many documents of the change are published; it never decreases.
UPDATE changes SET published = max(changes.published, new.published)
FROM (WITH new (number, published) AS (VALUES :rows) SELECT * FROM new) AS new
WHERE changes.number = new.number;

-- name: cancel_unstarted
-- Cancels some jobs of an experiment that never started. They are counted, and get no position among the ends. Excluded
-- ones are counted in another way, and cancelled one by one. Every insert conflicts: each run is found by its key.
INSERT INTO runs (experiment, point, replicate, attempt, seed, state, stop_reason, finished_ms)
WITH new (experiment, stop_reason, at_ms, jobs) AS (VALUES :rows)
SELECT runs.experiment, point, replicate, attempt, seed, 'cancelled', new.stop_reason, new.at_ms
FROM new CROSS JOIN runs INDEXED BY runs_due
WHERE runs.experiment = new.experiment AND runs.state = 'pending' AND attempt = 1 AND runs.excluded IS NULL
LIMIT (SELECT jobs FROM new)
ON CONFLICT DO UPDATE SET state = excluded.state, stop_reason = excluded.stop_reason, finished_ms = excluded.finished_ms;

-- name: count_unstarted
-- Adds the jobs that the statement before cancelled to the counts of a change.
UPDATE changes SET
  counts = json_set(counts, '$.pending', json_set(coalesce(json_extract(counts, '$.pending'), '{}'), '$.cancelled',
    coalesce(json_extract(counts, '$.pending.cancelled'), 0) + changes()))
WHERE number = :rows AND changes() > 0;

-- name: insert_identities key=2
-- By which points are found when their plan is extended.
INSERT INTO point_identities (experiment, point, digest, version) VALUES :rows;

-- name: match_points key=2
-- A version of the plan has these points.
UPDATE point_identities SET version = new.version
FROM (WITH new (experiment, point, version) AS (VALUES :rows) SELECT * FROM new) AS new
WHERE point_identities.experiment = new.experiment AND point_identities.point = new.point;
