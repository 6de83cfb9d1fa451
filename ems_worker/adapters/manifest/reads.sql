-- What the read connections run. queries.py says what stands in braces.

-- name: submission
-- The decision about one message.
SELECT {columns} FROM submissions
WHERE stream_created_ns = :stream_created_ns AND seq = :seq AND stored_ms = :stored_ms;

-- name: accepted
-- The document of the decision that accepted a plan of exactly these bytes.
SELECT document FROM submissions WHERE digest = :digest LIMIT 1;

-- name: quota_use
-- How many experiments of a publisher have not ended, and how many jobs these have, ended ones included.
SELECT count(*) AS experiments, coalesce(sum(jobs), 0) AS jobs
FROM experiments CROSS JOIN submissions USING (experiment_id)
WHERE finished_ms IS NULL AND verdict = 'accepted' AND publisher IS :publisher;

-- name: last_plan
-- The highest sequence of a stream for which there is a decision.
SELECT max(seq) FROM submissions WHERE stream_created_ns = :stream_created_ns;

-- name: unpublished_decisions
-- Decisions that wait to be published, oldest first.
SELECT {columns} FROM submissions WHERE published = 0 ORDER BY received_ms, stream_created_ns, seq;

-- name: experiment
-- One experiment by its id, with the present version of its plan.
SELECT {columns} FROM experiments JOIN (
  SELECT experiment, version, language, hold, keep_open, description, tags, parameters, traceparent, plan, headings,
    (SELECT base FROM plans AS first WHERE first.experiment = plans.experiment AND first.version = 1) AS base
  FROM plans
) AS plans ON plans.experiment = experiments.key AND plans.version = experiments.plan_version
WHERE experiment_id = :experiment_id;

-- name: unfinished
-- Experiments that a worker loads at its start. The first condition is that of the index experiments_unfinished. An
-- experiment may end before attempts that its jobs no longer need: these still have to be stopped. A change of an ended
-- experiment may be under way as well.
SELECT {columns} FROM experiments JOIN (
  SELECT experiment, version, language, hold, keep_open, description, tags, parameters, traceparent, plan, headings,
    (SELECT base FROM plans AS first WHERE first.experiment = plans.experiment AND first.version = 1) AS base
  FROM plans
) AS plans ON plans.experiment = experiments.key AND plans.version = experiments.plan_version
WHERE key IN (
  SELECT key FROM experiments
  WHERE finished_ms IS NULL OR published_seq < ended_seq
    OR published_revision < revision OR published_revision < state_revision
  UNION SELECT experiment FROM runs WHERE {open}
  UNION SELECT experiment FROM changes WHERE applied_ms IS NULL
) ORDER BY key;

-- name: status
-- The last status that was recorded for an experiment.
SELECT document FROM statuses WHERE experiment = :key;

-- name: statuses
-- A page of experiments with their last statuses and publishers, newest first. `like` is the beginning of an id, or a
-- whole name.
SELECT key, experiment_id, document, (
  SELECT publisher FROM submissions
  WHERE submissions.experiment_id = experiments.experiment_id AND verdict = 'accepted' LIMIT 1
) AS publisher
FROM experiments LEFT JOIN statuses ON statuses.experiment = experiments.key
WHERE key < :before_key AND NOT EXISTS (SELECT 1 FROM removals WHERE removals.experiment = key)
  AND (:group IS NULL OR "group" = :group) AND (:state IS NULL OR state = :state)
  AND (:since_ms IS NULL OR created_ms >= :since_ms)
  AND (:name IS NULL OR instr(lower(name), lower(:name)) > 0)
  AND (:like IS NULL OR substr(experiment_id, 1, length(:like)) = :like OR name = :like)
  AND (:tag IS NULL OR EXISTS (
    SELECT 1 FROM plans JOIN json_each(plans.tags) AS tag
    WHERE plans.experiment = experiments.key AND plans.version = experiments.plan_version AND tag.value = :tag
  ))
ORDER BY key DESC LIMIT :limit;

-- name: tracked
-- What an experiment's aggregates are over.
SELECT {columns} FROM experiments WHERE key = :key;

-- name: counted
-- How many jobs of an experiment count alike: core.lifecycle.tally.tally. Nearly all of a large one are pending or
-- completed, without anything else that matters: these are counted in one pass, because grouping a million rows takes
-- more than a second.
WITH usual AS MATERIALIZED (
  SELECT count(*) FILTER (WHERE state = 'pending' AND excluded IS NULL) AS pending,
    count(*) FILTER (WHERE state = 'completed' AND excluded IS NULL AND waiting IS NULL) AS completed,
    count(*) AS jobs
  FROM runs WHERE experiment = :key AND current = 1
)
SELECT 'pending' AS bucket, 0 AS is_excluded, NULL AS stop_reason, 0 AS drains, pending AS jobs FROM usual
UNION ALL SELECT 'completed', 0, NULL, 0, completed FROM usual
UNION ALL SELECT * FROM (
  SELECT {bucket} AS bucket, excluded IS NOT NULL AS is_excluded, stop_reason, drains, count(*) AS jobs
  FROM usual CROSS JOIN runs
  WHERE jobs > pending + completed AND experiment = :key AND current = 1
    AND NOT (excluded IS NULL AND (state = 'pending' OR (state = 'completed' AND waiting IS NULL)))
  GROUP BY 1, 2, 3, 4
);

-- name: merged_metrics
-- The aggregates of an experiment, merged from those of its points (Chan, Golub and LeVeque, 1979).
WITH whole AS MATERIALIZED (
  SELECT metric, sum(n) AS n, sum(n * mean) / sum(n) AS mean FROM point_metrics WHERE experiment = :key GROUP BY metric
)
SELECT metric, whole.n, whole.mean,
  sum(part.m2 + part.n * (part.mean - whole.mean) * (part.mean - whole.mean)) AS m2,
  min(part.min) AS min, max(part.max) AS max, sum(missing) AS missing
FROM point_metrics AS part JOIN whole USING (metric)
WHERE experiment = :key GROUP BY metric;

-- name: jobs_of_points
-- The jobs of some points as a status counts them, with the last position of their ends. Jobs that were cancelled before
-- they started have ended without one.
SELECT runs.point, {bucket} AS bucket, count(*) AS jobs, count(excluded) AS excluded_jobs, min(excluded) AS excluded,
  max({unsettled}) AS is_open, max(ended_seq) AS ended_seq
FROM json_each(:numbers) AS wanted CROSS JOIN runs
WHERE runs.experiment = :key AND runs.point = wanted.value AND current = 1
GROUP BY 1, 2;

-- name: metrics_of_points
-- The aggregates of some points.
SELECT {point_metrics.columns} FROM json_each(:numbers) AS wanted CROSS JOIN point_metrics
WHERE point_metrics.experiment = :key AND point_metrics.point = wanted.value;

-- name: ended_points
-- Of some points, those whose jobs had all ended by a position. The search begins at the last replicate, which started
-- last: if a job is open it is found soon, however many have ended.
SELECT wanted.value AS point FROM json_each(:numbers) AS wanted
WHERE (
  SELECT 1 FROM runs
  WHERE experiment = :key AND point = wanted.value AND current = 1
    AND ({unsettled} OR ended_seq > :seq)
  ORDER BY experiment DESC, point DESC, replicate DESC, attempt DESC LIMIT 1
) IS NULL;

-- name: called_off_points
-- Points with a job that was cancelled before it started, which has no position among the ends, and a job that has one.
SELECT DISTINCT called_off.point FROM runs AS called_off
WHERE called_off.experiment = :key AND called_off.point > :after_point AND called_off.current = 1
  AND called_off.state = 'cancelled' AND called_off.ended_seq IS NULL
  AND EXISTS (
    SELECT 1 FROM runs AS other
    WHERE other.experiment = :key AND other.point = called_off.point AND other.ended_seq IS NOT NULL
  )
ORDER BY called_off.point LIMIT :limit;

-- name: best_point
-- Of the points whose jobs have all ended, the one with the lowest value of :sign times its mean.
SELECT point FROM point_metrics
WHERE experiment = :key AND metric = :metric AND n > 0 AND mean IS NOT NULL AND NOT EXISTS (
  SELECT 1 FROM runs
  WHERE runs.experiment = :key AND runs.point = point_metrics.point AND current = 1
    AND {unsettled}
)
ORDER BY mean * :sign, point LIMIT 1;

-- name: due
-- The pending runs that are due, in order of (due, point, replicate), and whether all their other columns are as they
-- were created.
SELECT point, replicate, seed, due_ms,
  attempt = 1 AND job_revision = 0 AND excluded IS NULL AND metrics IS NULL AS is_new
FROM runs WHERE experiment = :key AND state = 'pending' AND due_ms <= :now_ms
ORDER BY due_ms, point, replicate LIMIT :limit;

-- name: due_of
-- The same for each of some experiments.
SELECT wanted.value AS experiment, runs.point, runs.replicate, seed, runs.due_ms,
  runs.attempt = 1 AND job_revision = 0 AND excluded IS NULL AND metrics IS NULL AS is_new
FROM json_each(:keys) AS wanted CROSS JOIN runs
WHERE runs.experiment = wanted.value AND (runs.point, runs.replicate, runs.attempt) IN (
  SELECT point, replicate, attempt FROM runs AS due
  WHERE due.experiment = wanted.value AND due.state = 'pending' AND due.due_ms <= :now_ms
  ORDER BY due_ms, point, replicate LIMIT :limit
)
ORDER BY wanted.key, runs.due_ms, runs.point, runs.replicate;

-- name: due_counts
-- For each of some experiments, how many runs are pending and due, where counting stops at a limit; and when the first
-- pending run is due.
SELECT wanted.value AS experiment, (
  SELECT count(*) FROM (
    SELECT 1 FROM runs WHERE experiment = wanted.value AND state = 'pending' AND due_ms <= :now_ms LIMIT :limit
  )
) AS due, (SELECT min(due_ms) FROM runs WHERE experiment = wanted.value AND state = 'pending') AS next_ms
FROM json_each(:keys) AS wanted;

-- name: last_due
-- The last time at which a pending run of a running experiment is due.
SELECT max((
  SELECT max(due_ms) FROM runs WHERE runs.experiment = experiments.key AND runs.state = 'pending'
)) FROM experiments WHERE finished_ms IS NULL AND experiments.state = 'running';

-- name: jobs
-- All attempts of some jobs, given as [[experiment, point, replicate], ...].
SELECT {runs.columns} FROM json_each(:keys) AS wanted CROSS JOIN runs
WHERE runs.experiment = json_extract(wanted.value, '$[0]')
  AND runs.point = json_extract(wanted.value, '$[1]')
  AND runs.replicate = json_extract(wanted.value, '$[2]')
ORDER BY runs.experiment, runs.point, runs.replicate, runs.attempt;

-- name: open_jobs
-- All attempts of the jobs that have an open attempt, in order.
WITH open AS MATERIALIZED (
  SELECT DISTINCT point, replicate FROM runs INDEXED BY runs_open
  WHERE experiment = :key AND {open}
)
SELECT {runs.columns} FROM open CROSS JOIN runs
WHERE runs.experiment = :key AND runs.point = open.point AND runs.replicate = open.replicate
ORDER BY runs.point, runs.replicate, runs.attempt;

-- name: awaiting
-- The runs whose jobs wait for metrics.
SELECT {columns} FROM runs INDEXED BY runs_awaiting WHERE experiment = :key AND waiting = 'awaiting' ORDER BY point, replicate;

-- name: to_retry
-- All attempts of the jobs after a (point, replicate) that a retry takes, in order.
WITH failed AS MATERIALIZED (
  SELECT point, replicate FROM runs
  WHERE experiment = :key AND current = 1 AND (point, replicate) > (:point, :replicate)
    AND {retried}
  ORDER BY point, replicate LIMIT :limit
)
SELECT {runs.columns} FROM failed CROSS JOIN runs
WHERE runs.experiment = :key AND runs.point = failed.point AND runs.replicate = failed.replicate
ORDER BY runs.point, runs.replicate, runs.attempt;

-- name: points_by_number
-- Some points of an experiment.
SELECT {points.columns}
FROM json_each(:numbers) AS wanted CROSS JOIN points
WHERE points.experiment = :key AND points.point = wanted.value;

-- name: points_of
-- Some points of several experiments, given as [[experiment, point], ...].
SELECT {points.columns}
FROM json_each(:numbers) AS wanted CROSS JOIN points
WHERE points.experiment = json_extract(wanted.value, '$[0]') AND points.point = json_extract(wanted.value, '$[1]');

-- name: point_numbers
-- A page of an experiment's points.
SELECT point FROM points WHERE experiment = :key AND point > :after_point ORDER BY point LIMIT :limit;

-- name: results
-- Ended jobs in the order of their ends.
SELECT {columns} FROM runs WHERE experiment = :key AND ended_seq > :after_seq ORDER BY ended_seq LIMIT :limit;

-- name: jobs_page
-- A page of current runs, or of all attempts, up to a job; of one bucket where a state is given.
SELECT {columns} FROM runs
WHERE experiment = :key AND (point, replicate, attempt) > (:point, :replicate, :attempt)
  AND (point, replicate) <= (:last_point, :last_replicate)
  AND (current = 1 OR :attempts)
  AND (:state IS NULL OR :state = {bucket})
ORDER BY point, replicate, attempt LIMIT :limit;

-- name: durations
-- How long the last completed runs of the latest experiments took, newest first, and whether they share this base.
WITH latest AS MATERIALIZED (
  SELECT key, ended_seq, plans.base = :base AS same_base
  FROM experiments JOIN plans ON plans.experiment = experiments.key AND plans.version = 1
  WHERE ended_seq > 0 ORDER BY key DESC LIMIT :experiments
)
SELECT same_base, model_version, (finished_ms - coalesce(started_ms, submitted_ms)) / 1000.0 AS seconds
FROM latest CROSS JOIN runs
WHERE runs.experiment = latest.key AND runs.ended_seq > latest.ended_seq - :each
  AND state = 'completed' AND coalesce(started_ms, submitted_ms) IS NOT NULL
ORDER BY latest.key DESC, runs.ended_seq DESC;

-- name: parked
-- Parked events, oldest first.
SELECT {columns} FROM parked_events ORDER BY id;

-- name: parked_of
-- Parked events of runs whose ids begin with those of some experiments, oldest first.
SELECT {columns} FROM parked_events WHERE id IN (
  SELECT parked_events.id FROM json_each(:experiments) AS wanted CROSS JOIN parked_events
  WHERE simulation_id >= wanted.value || '-p' AND simulation_id < wanted.value || '-q'
) ORDER BY id;

-- name: any_parked
-- Whether any event is parked.
SELECT 1 FROM parked_events LIMIT 1;

-- name: remembered
-- A fact about the outside.
SELECT value FROM remembered WHERE name = :name;

-- name: damage
-- The first thing that is wrong with the structure of the file; "ok" if nothing is.
PRAGMA quick_check(1);
