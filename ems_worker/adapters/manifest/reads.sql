-- What the readers run. `runs.*` is in the order of the table's columns, which rows.py relies on.

-- name: submission
-- The decision about one message.
SELECT stream, stream_created_ns, seq, stored_ms, subject, received_ms, verdict, document, experiment_id, plan_sha, publisher, reply_to
FROM submissions WHERE stream_created_ns = :stream_created_ns AND seq = :seq AND stored_ms = :stored_ms;

-- name: accepted
-- The document of the decision that accepted a plan of these very bytes.
SELECT document FROM submissions WHERE digest = :digest LIMIT 1;

-- name: held
-- How many experiments of a publisher have not ended, and all their jobs.
SELECT count(*), coalesce(sum(jobs), 0) FROM experiments CROSS JOIN submissions USING (experiment_id)
WHERE finished_ms IS NULL AND verdict = 'accepted' AND publisher IS :publisher;

-- name: last_plan
-- The highest sequence of a stream that was decided.
SELECT max(seq) FROM submissions WHERE stream_created_ns = :stream_created_ns;

-- name: unpublished_decisions
-- Decisions that wait to be published, oldest first.
SELECT stream, stream_created_ns, seq, stored_ms, subject, received_ms, verdict, document, experiment_id, plan_sha, publisher, reply_to
FROM submissions WHERE published = 0 ORDER BY received_ms, stream_created_ns, seq;

-- name: experiment
-- One experiment by its id.
SELECT experiments.*, plans.* FROM experiments JOIN plans ON plans.experiment = experiments.key
WHERE experiment_id = :experiment_id;

-- name: unfinished
-- Experiments that a worker takes up at its start; the first condition is its index's. Attempts that nobody waits for any
-- more may outlive their experiment: they are still to be stopped.
SELECT experiments.*, plans.* FROM experiments JOIN plans ON plans.experiment = experiments.key
WHERE key IN (
  SELECT key FROM experiments
  WHERE finished_ms IS NULL OR published_seq < ended_seq
    OR published_revision < revision OR published_revision < state_revision
  UNION SELECT experiment FROM runs WHERE state IN ('submitting', 'submitted', 'running')
) ORDER BY key;

-- name: status
-- The last status that was recorded of an experiment.
SELECT document FROM statuses WHERE experiment = :key;

-- name: statuses
-- A page of experiments with their last statuses, newest first.
SELECT key, experiment_id, document FROM experiments LEFT JOIN statuses ON statuses.experiment = experiments.key
WHERE key < :before_key AND (:group IS NULL OR "group" = :group) AND (:state IS NULL OR state = :state)
ORDER BY key DESC LIMIT :limit;

-- name: tracked
-- What the aggregates of an experiment are about.
SELECT jobs, metrics, goal_metric, goal FROM experiments WHERE key = :key;

-- name: standing
-- The run that stands for each job of an experiment, in order: state, kind of error, metrics of completed ones.
SELECT state, error_kind, waiting, CASE WHEN state = 'completed' THEN metrics END
FROM runs WHERE experiment = :key AND current = 1 ORDER BY point, replicate;

-- name: standing_of_points
-- The same for some points, with the position of each end.
SELECT runs.point, state, error_kind, waiting, CASE WHEN state = 'completed' THEN metrics END, ended_seq
FROM json_each(:numbers) AS wanted CROSS JOIN runs
WHERE runs.experiment = :key AND runs.point = wanted.value AND current = 1
ORDER BY runs.point, replicate;

-- name: ended_points
-- Of some points, those all of whose jobs had ended by a position. Looked at from the last replicate down, which is
-- started last: an open one is met soon, however many have ended.
SELECT wanted.value FROM json_each(:numbers) AS wanted
WHERE (
  SELECT 1 FROM runs
  WHERE experiment = :key AND point = wanted.value AND current = 1 AND (ended_seq IS NULL OR ended_seq > :seq)
  ORDER BY experiment DESC, point DESC, replicate DESC, attempt DESC LIMIT 1
) IS NULL;

-- name: best_point
-- The point with the least value of :sign times its mean, of those whose jobs have all ended.
SELECT point FROM (
  SELECT point, count(*) AS jobs, count(ended_seq) AS ended,
    avg(CASE WHEN state = 'completed' AND waiting IS NULL
      THEN (SELECT value FROM json_each(metrics) WHERE key = :metric) END) AS mean
  FROM runs WHERE experiment = :key AND current = 1 GROUP BY point
) WHERE jobs = ended AND mean IS NOT NULL ORDER BY mean * :sign, point LIMIT 1;

-- name: due
-- Attempts of jobs whose current run is pending and due, in order of (due, point, replicate).
WITH due AS MATERIALIZED (
  SELECT due_ms, point, replicate FROM runs
  WHERE experiment = :key AND state = 'pending' AND due_ms <= :now_ms
  ORDER BY due_ms, point, replicate LIMIT :limit
)
SELECT runs.* FROM due CROSS JOIN runs
WHERE runs.experiment = :key AND runs.point = due.point AND runs.replicate = due.replicate
ORDER BY due.due_ms, due.point, due.replicate, runs.attempt;

-- name: due_counts
-- How many runs of each of some experiments are pending and due, counted no further than a limit.
SELECT wanted.value, (
  SELECT count(*) FROM (
    SELECT 1 FROM runs WHERE experiment = wanted.value AND state = 'pending' AND due_ms <= :now_ms LIMIT :most
  )
) FROM json_each(:keys) AS wanted;

-- name: next_due
-- When the next pending run of a running experiment falls due, of those that are not due at a time.
SELECT min((
  SELECT due_ms FROM runs
  WHERE runs.experiment = experiments.key AND runs.state = 'pending' AND due_ms > :after_ms
  ORDER BY due_ms LIMIT 1
)) FROM experiments WHERE finished_ms IS NULL AND experiments.state = 'running';

-- name: last_due
-- When the last pending run of a running experiment falls due.
SELECT max((
  SELECT max(due_ms) FROM runs WHERE runs.experiment = experiments.key AND runs.state = 'pending'
)) FROM experiments WHERE finished_ms IS NULL AND experiments.state = 'running';

-- name: jobs
-- All attempts of some jobs, given as [[experiment, point, replicate], ...].
SELECT runs.* FROM json_each(:keys) AS wanted CROSS JOIN runs
WHERE runs.experiment = json_extract(wanted.value, '$[0]')
  AND runs.point = json_extract(wanted.value, '$[1]')
  AND runs.replicate = json_extract(wanted.value, '$[2]')
ORDER BY runs.experiment, runs.point, runs.replicate, runs.attempt;

-- name: open_jobs
-- All attempts of the jobs that have an open one, in order.
WITH open AS MATERIALIZED (
  SELECT DISTINCT point, replicate FROM runs
  WHERE experiment = :key AND state IN ('submitting', 'submitted', 'running')
)
SELECT runs.* FROM open CROSS JOIN runs
WHERE runs.experiment = :key AND runs.point = open.point AND runs.replicate = open.replicate
ORDER BY runs.point, runs.replicate, runs.attempt;

-- name: awaiting
-- The runs whose jobs wait for metrics.
SELECT * FROM runs WHERE experiment = :key AND waiting = 'awaiting' ORDER BY point, replicate;

-- name: to_retry
-- All attempts of jobs that failed, were lost, or were dropped since too many others had failed, after a place, in order.
WITH failed AS MATERIALIZED (
  SELECT point, replicate FROM runs
  WHERE experiment = :key AND current = 1 AND (point, replicate) > (:point, :replicate)
    AND (waiting = 'missing' OR state = 'lost' OR (state = 'failed' AND error_kind IS NOT 'infeasible')
      OR (state = 'cancelled' AND stop_reason = 'unwanted'))
  ORDER BY point, replicate LIMIT :limit
)
SELECT runs.* FROM failed CROSS JOIN runs
WHERE runs.experiment = :key AND runs.point = failed.point AND runs.replicate = failed.replicate
ORDER BY runs.point, runs.replicate, runs.attempt;

-- name: request
-- A change that was asked for.
SELECT request_id, experiment, verb, body, received_ms, answer FROM requests WHERE request_id = :request_id;

-- name: open_requests
-- Changes of an experiment that are not carried out yet, oldest first.
SELECT request_id, experiment, verb, body, received_ms, answer FROM requests
WHERE experiment = :key AND answer IS NULL ORDER BY received_ms, request_id;

-- name: points_by_number
-- Some points of an experiment.
SELECT points.point, params, run_id_suffix, labels
FROM json_each(:numbers) AS wanted CROSS JOIN points
WHERE points.experiment = :key AND points.point = wanted.value;

-- name: point_numbers
-- A page of an experiment's points.
SELECT point FROM points WHERE experiment = :key AND point > :after_point ORDER BY point LIMIT :limit;

-- name: results
-- Ended jobs in the order of their end.
SELECT * FROM runs WHERE experiment = :key AND ended_seq > :after_seq ORDER BY ended_seq LIMIT :limit;

-- name: jobs_page
-- A page of standing runs, or of all attempts, by what a status counts them as.
SELECT * FROM runs
WHERE experiment = :key AND (point, replicate, attempt) > (:point, :replicate, :attempt)
  AND (current = 1 OR :attempts)
  AND (:state IS NULL OR :state = CASE
    WHEN waiting = 'awaiting' THEN 'awaiting_metrics' WHEN waiting = 'missing' THEN 'failed'
    WHEN state = 'failed' AND error_kind = 'infeasible' THEN 'infeasible' ELSE state END)
ORDER BY point, replicate, attempt LIMIT :limit;

-- name: durations
-- How long the last completed runs of the latest experiments took, newest first, and whether their base was this one.
WITH latest AS MATERIALIZED (
  SELECT key, ended_seq, plans.base = :base AS same_base FROM experiments JOIN plans ON plans.experiment = experiments.key
  WHERE ended_seq > 0 ORDER BY key DESC LIMIT :experiments
)
SELECT same_base, model_version, (finished_ms - coalesce(started_ms, submitted_ms)) / 1000.0
FROM latest CROSS JOIN runs
WHERE runs.experiment = latest.key AND runs.ended_seq > latest.ended_seq - :each
  AND state = 'completed' AND coalesce(started_ms, submitted_ms) IS NOT NULL
ORDER BY latest.key DESC, runs.ended_seq DESC;

-- name: parked
-- Parked events, oldest first.
SELECT simulation_id, subject, seq, received_ms, data FROM parked_events ORDER BY id;

-- name: parked_of
-- Those of some experiments, which their names begin with, oldest first.
SELECT simulation_id, subject, seq, received_ms, data FROM parked_events WHERE id IN (
  SELECT parked_events.id FROM json_each(:experiments) AS wanted CROSS JOIN parked_events
  WHERE simulation_id >= wanted.value || '-p' AND simulation_id < wanted.value || '-q'
) ORDER BY id;

-- name: any_parked
-- Whether there are any.
SELECT 1 FROM parked_events LIMIT 1;

-- name: remembered
-- A fact about the outside.
SELECT value FROM remembered WHERE name = :name;
