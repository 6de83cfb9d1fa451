-- What the writer runs. A guarded statement changes exactly one row for each row of values, or its request fails.
-- Each begins with its verb: Python's sqlite3 doesn't count the rows that a statement with a leading WITH changes.

-- name: insert_submission key=3
-- Records a decision.
INSERT INTO submissions
  (stream_created_ns, seq, stored_ms, stream, subject, received_ms, verdict, document, experiment_id, plan_sha, publisher,
   reply_to, digest)
VALUES :rows;

-- name: publish_submission key=3
-- Marks decisions as published; repeating it is harmless.
UPDATE submissions SET published = 1 WHERE (stream_created_ns, seq, stored_ms) IN (VALUES :rows);

-- name: drop_submissions
-- Drops some published decisions that created no experiment and whose messages can't be delivered again: in the
-- present stream, known by its creation time, those before the first message that it still has; in other streams, those
-- received before a time. The stream's newest decision stays: it records up to which message there are decisions.
DELETE FROM submissions WHERE rowid IN (
  WITH now (created_ns, first_seq, before_ms) AS (VALUES :rows)
  SELECT old.rowid FROM now CROSS JOIN submissions AS old
  WHERE verdict <> 'accepted' AND published = 1 AND stream_created_ns = created_ns AND old.seq < first_seq
    AND old.seq < (SELECT max(seq) FROM submissions WHERE stream_created_ns = created_ns)
  UNION ALL
  SELECT old.rowid FROM now CROSS JOIN submissions AS old
  WHERE verdict <> 'accepted' AND published = 1 AND stream_created_ns < created_ns AND received_ms < before_ms
  UNION ALL
  SELECT old.rowid FROM now CROSS JOIN submissions AS old
  WHERE verdict <> 'accepted' AND published = 1 AND stream_created_ns > created_ns AND received_ms < before_ms
  LIMIT 1000
);

-- name: insert_experiment
-- Records the experiment of an accepted plan.
INSERT INTO experiments
  (experiment_id, name, "group", plan_sha, points, jobs, replicates, metrics, goal_metric, goal, created_ms, state,
   pauses, kept_open)
VALUES :rows;

-- name: insert_plan
-- Records the plan that an experiment was accepted with.
INSERT INTO plans
  (experiment, version, plan_sha, language, hold, keep_open, description, tags, parameters, traceparent, plan, headings, base)
SELECT key, 1, plan_sha, column2, column3, column4, column5, column6, column7, column8, column9, column10,
  column11
FROM (VALUES :rows) JOIN experiments ON experiment_id = column1;

-- name: save_experiment key=1
-- How an experiment stands, guarded by its state and round. A status with the next revision can report the change.
UPDATE experiments SET
  state = new.state,
  reason = new.reason,
  round = new.round,
  started_ms = new.started_ms,
  finished_ms = new.finished_ms,
  pauses = new.pauses,
  pause_now = new.pause_now,
  cancel = new.cancel,
  kept_open = new.kept_open,
  overrides = new.overrides,
  plan_version = new.plan_version,
  settled_round = new.settled_round,
  settling_ms = new.settling_ms,
  earlier_jobs = new.earlier_jobs,
  state_revision = CASE WHEN (experiments.state, experiments.round, experiments.pauses, experiments.cancel)
      IS (new.state, new.round, new.pauses, new.cancel)
    THEN state_revision ELSE revision + 1 END
FROM (
  WITH new
  (key, expected, expected_round, state, reason, round, started_ms, finished_ms, pauses, pause_now, cancel, kept_open,
   overrides, plan_version, settled_round, settling_ms, earlier_jobs)
  AS (VALUES :rows) SELECT * FROM new
) AS new
WHERE experiments.key = new.key AND experiments.state = new.expected AND experiments.round = new.expected_round;

-- name: advance_expansion key=1
-- The new number of expanded points, guarded by the old one.
UPDATE experiments SET expanded_points = new.expanded_points
FROM (WITH new (key, expected, expanded_points) AS (VALUES :rows) SELECT * FROM new) AS new
WHERE experiments.key = new.key AND experiments.expanded_points = new.expected;

-- name: insert_points key=2
-- Records points with their parameters.
INSERT INTO points (experiment, point, params, run_id_suffix, labels) VALUES :rows;

-- name: insert_pending key=4
-- First runs of jobs: the columns that aren't named have their defaults.
INSERT INTO runs (experiment, point, replicate, attempt, seed, due_ms) VALUES :rows;

-- name: insert_runs key=4
-- Records further attempts.
INSERT INTO runs
  (experiment, point, replicate, attempt, seed, state, current, due_ms, submitted_ms, started_ms, finished_ms,
   elapsed_ms, stop_reason, error_kind, error_message, retryable, metrics, artifacts, waiting, model_version, config_sha,
   ended_seq, job_revision, drains, suspended, host, slot, step, total, excluded)
VALUES :rows;

-- name: claim_runs key=4
-- The columns that change when attempts are claimed, and no others: rows.NARROW.
UPDATE runs SET
  state = new.state,
  submitted_ms = new.submitted_ms,
  config_sha = new.config_sha
FROM (
  WITH new (experiment, point, replicate, attempt, expected, state, submitted_ms, config_sha)
  AS (VALUES :rows) SELECT * FROM new
) AS new
WHERE runs.experiment = new.experiment AND runs.point = new.point AND runs.replicate = new.replicate
  AND runs.attempt = new.attempt AND runs.state = new.expected;

-- name: accept_runs key=4
-- The same for attempts that the orchestrator accepted.
UPDATE runs SET
  state = new.state
FROM (
  WITH new (experiment, point, replicate, attempt, expected, state)
  AS (VALUES :rows) SELECT * FROM new
) AS new
WHERE runs.experiment = new.experiment AND runs.point = new.point AND runs.replicate = new.replicate
  AND runs.attempt = new.attempt AND runs.state = new.expected;

-- name: complete_runs key=4
-- The same for attempts that completed.
UPDATE runs SET
  state = new.state,
  started_ms = new.started_ms,
  finished_ms = new.finished_ms,
  metrics = new.metrics,
  artifacts = new.artifacts,
  model_version = new.model_version,
  host = new.host,
  slot = new.slot,
  ended_seq = new.ended_seq,
  job_revision = new.job_revision
FROM (
  WITH new
  (experiment, point, replicate, attempt, expected, state, started_ms, finished_ms, metrics, artifacts, model_version,
   host, slot, ended_seq, job_revision)
  AS (VALUES :rows) SELECT * FROM new
) AS new
WHERE runs.experiment = new.experiment AND runs.point = new.point AND runs.replicate = new.replicate
  AND runs.attempt = new.attempt AND runs.state = new.expected;

-- name: update_runs key=4
-- All columns of attempts that can change, guarded by the state that each was in.
UPDATE runs SET
  state = new.state,
  current = new.current,
  due_ms = new.due_ms,
  submitted_ms = new.submitted_ms,
  started_ms = new.started_ms,
  finished_ms = new.finished_ms,
  elapsed_ms = new.elapsed_ms,
  stop_reason = new.stop_reason,
  error_kind = new.error_kind,
  error_message = new.error_message,
  retryable = new.retryable,
  metrics = new.metrics,
  artifacts = new.artifacts,
  waiting = new.waiting,
  model_version = new.model_version,
  config_sha = new.config_sha,
  ended_seq = new.ended_seq,
  job_revision = new.job_revision,
  drains = new.drains,
  suspended = new.suspended,
  host = new.host,
  slot = new.slot,
  step = new.step,
  total = new.total,
  excluded = new.excluded
FROM (
  WITH new
  (experiment, point, replicate, attempt, expected, state, current, due_ms, submitted_ms, started_ms, finished_ms,
   elapsed_ms, stop_reason, error_kind, error_message, retryable, metrics, artifacts, waiting, model_version, config_sha,
   ended_seq, job_revision, drains, suspended, host, slot, step, total, excluded)
  AS (VALUES :rows) SELECT * FROM new
) AS new
WHERE runs.experiment = new.experiment AND runs.point = new.point AND runs.replicate = new.replicate
  AND runs.attempt = new.attempt AND runs.state = new.expected;

-- name: give_seq key=1
-- The position of the last end of a job; it never decreases.
UPDATE experiments SET ended_seq = max(experiments.ended_seq, new.ended_seq)
FROM (WITH new (key, ended_seq) AS (VALUES :rows) SELECT * FROM new) AS new
WHERE experiments.key = new.key;

-- name: compose_revision key=1
-- The revision of the last status that was composed; it never decreases.
UPDATE experiments SET revision = max(experiments.revision, new.revision)
FROM (WITH new (key, revision) AS (VALUES :rows) SELECT * FROM new) AS new
WHERE experiments.key = new.key;

-- name: record_status key=1
-- The last status that was composed.
INSERT INTO statuses (experiment, document) VALUES :rows
ON CONFLICT (experiment) DO UPDATE SET document = excluded.document;

-- name: publish_revision key=1
-- The revision of the last status that the broker acknowledged; it never decreases.
UPDATE experiments SET published_revision = max(published_revision, new.revision)
FROM (WITH new (key, revision) AS (VALUES :rows) SELECT * FROM new) AS new
WHERE experiments.key = new.key;

-- name: owe_status key=1
-- Only a status with the next revision can report what was changed.
UPDATE experiments SET state_revision = revision + 1 WHERE key IN (VALUES :rows);

-- name: confirm_status
-- The last published status says how the experiment stands. Mostly no other one is owed, and nothing is written.
UPDATE experiments SET state_revision = published_revision
WHERE key IN (VALUES :rows) AND state_revision > published_revision;

-- name: publish_seq key=1
-- Ends of jobs up to this position are published; it never decreases.
UPDATE experiments SET published_seq = max(published_seq, new.seq)
FROM (WITH new (key, seq) AS (VALUES :rows) SELECT * FROM new) AS new
WHERE experiments.key = new.key;

-- name: hasten
-- Makes pending runs of unfinished experiments due at a time if they would be due later.
UPDATE runs SET due_ms = latest.due_ms FROM (SELECT column1 AS due_ms FROM (VALUES :rows)) AS latest
WHERE runs.experiment IN (SELECT key FROM experiments WHERE finished_ms IS NULL)
  AND runs.state = 'pending' AND runs.due_ms > latest.due_ms;

-- name: park key=3
-- Parks events of unknown runs. An event that is already parked is ignored.
INSERT OR IGNORE INTO parked_events (simulation_id, subject, seq, received_ms, data) VALUES :rows;

-- name: drop_parked
-- Drops all but the newest events, of which so many stay.
DELETE FROM parked_events WHERE id <= (SELECT id FROM parked_events ORDER BY id DESC LIMIT 1 OFFSET :rows);

-- name: drop_parked_bytes
-- Drops all but the newest events, of which so many bytes stay.
DELETE FROM parked_events WHERE id <= (
  SELECT id FROM (SELECT id, sum(length(data)) OVER (ORDER BY id DESC) AS bytes FROM parked_events)
  WHERE bytes > :rows ORDER BY id DESC LIMIT 1
);

-- name: unpark
-- Drops events that were used.
DELETE FROM parked_events WHERE (simulation_id, subject, seq) IN (VALUES :rows);

-- name: expire_parked
-- Deletes parked events that were received before a given time.
DELETE FROM parked_events WHERE received_ms < :rows;

-- name: remember key=1
-- Remembers a fact about the outside, replacing the one of the same name.
INSERT INTO remembered (name, value) VALUES :rows ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: forget
-- Forgets a fact.
DELETE FROM remembered WHERE name = :rows;
