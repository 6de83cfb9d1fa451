-- The manifest's first schema. Times are milliseconds since the Unix epoch; JSON is text.
-- docs/manifest.md explains the views, which are a contract; the tables are internal and may change.

PRAGMA application_id = 0x454d5357;  -- 'EMSW': distinguishes this file from other programs' databases

-- One row for each plan message and the decision on it.
CREATE TABLE submissions (
  stream_created_ns INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  stored_ms INTEGER NOT NULL,
  stream TEXT NOT NULL,
  subject TEXT NOT NULL,
  received_ms INTEGER NOT NULL,
  verdict TEXT NOT NULL CONSTRAINT verdict_is_known CHECK (verdict IN ('accepted', 'duplicate', 'rejected')),
  document TEXT NOT NULL,
  experiment_id TEXT,
  plan_sha TEXT,
  publisher TEXT,
  reply_to TEXT,
  -- SHA-256 of an accepted plan's bytes as sent, if the same bytes always mean the same plan.
  digest BLOB CHECK (digest IS NULL OR length(digest) = 32),
  published INTEGER NOT NULL DEFAULT 0 CHECK (published IN (0, 1)),
  PRIMARY KEY (stream_created_ns, seq, stored_ms),
  CONSTRAINT accepted_names_experiment CHECK (verdict <> 'accepted' OR experiment_id IS NOT NULL)
) STRICT;

CREATE INDEX submissions_unpublished ON submissions (received_ms, stream_created_ns, seq) WHERE published = 0;
CREATE INDEX submissions_digest ON submissions (digest) WHERE digest IS NOT NULL;
CREATE INDEX submissions_accepted ON submissions (experiment_id) WHERE verdict = 'accepted';
-- The decisions that may be deleted once their messages can't be delivered again.
CREATE INDEX submissions_passing ON submissions (stream_created_ns, seq) WHERE verdict <> 'accepted' AND published = 1;

-- The identity of each experiment, and everything that changes. Rows are written often and stay small: see plans.
CREATE TABLE experiments (
  key INTEGER PRIMARY KEY,
  experiment_id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  "group" TEXT,
  plan_sha TEXT NOT NULL,
  points INTEGER NOT NULL,
  jobs INTEGER NOT NULL,
  replicates INTEGER NOT NULL,
  metrics TEXT NOT NULL,
  goal_metric TEXT,
  goal TEXT CONSTRAINT goal_is_known CHECK (goal IN ('minimize', 'maximize')),
  created_ms INTEGER NOT NULL,
  state TEXT NOT NULL CONSTRAINT experiment_state_is_known
    CHECK (state IN ('accepted', 'running', 'paused', 'completed', 'failed', 'cancelled')),
  round INTEGER NOT NULL DEFAULT 1 CHECK (round >= 1),
  revision INTEGER NOT NULL DEFAULT 0,
  published_revision INTEGER NOT NULL DEFAULT 0,
  -- The first revision of a status that can report the current state.
  state_revision INTEGER NOT NULL DEFAULT 0,
  ended_seq INTEGER NOT NULL DEFAULT 0,
  published_seq INTEGER NOT NULL DEFAULT 0,
  expanded_points INTEGER NOT NULL DEFAULT 0,
  started_ms INTEGER,
  finished_ms INTEGER,
  reason TEXT,
  -- Who pauses it: names in alphabetical order, separated by commas.
  pauses TEXT NOT NULL DEFAULT '',
  pause_now INTEGER NOT NULL DEFAULT 0 CHECK (pause_now IN (0, 1)),
  cancel TEXT CONSTRAINT cancel_is_known CHECK (cancel IN ('stop', 'drain')),
  kept_open INTEGER NOT NULL DEFAULT 0 CHECK (kept_open IN (0, 1)),
  -- Limits that `set` put in place of the plan's: JSON, by their keys in a plan.
  overrides TEXT NOT NULL DEFAULT '{}',
  plan_version INTEGER NOT NULL DEFAULT 1 CHECK (plan_version >= 1),
  settled_round INTEGER NOT NULL DEFAULT 0,
  settling_ms INTEGER CHECK (settling_ms >= 0),
  -- How many jobs it has besides those of this round.
  earlier_jobs INTEGER NOT NULL DEFAULT 0 CHECK (earlier_jobs >= 0),
  CONSTRAINT experiment_finished_when_ended
    CHECK ((state IN ('completed', 'failed', 'cancelled')) = (finished_ms IS NOT NULL)),
  CONSTRAINT paused_by_somebody CHECK ((state = 'paused') = (pauses <> '')),
  CONSTRAINT settled_round_began CHECK (settled_round BETWEEN 0 AND round),
  CONSTRAINT experiment_started_when_running CHECK (state <> 'running' OR started_ms IS NOT NULL),
  CONSTRAINT published_revision_was_composed CHECK (published_revision BETWEEN 0 AND revision),
  CONSTRAINT published_seq_was_given CHECK (published_seq BETWEEN 0 AND ended_seq),
  CONSTRAINT expanded_points_exist CHECK (expanded_points BETWEEN 0 AND points)
) STRICT;

-- The experiments that a worker loads at its start.
CREATE INDEX experiments_unfinished ON experiments (key)
  WHERE finished_ms IS NULL OR published_seq < ended_seq
    OR published_revision < revision OR published_revision < state_revision;

-- The plans that an experiment has had: version 1 as accepted, and one more with each `extend`. They may be large, and
-- every update of experiments would rewrite them. The base configuration is that of version 1 for all.
CREATE TABLE plans (
  experiment INTEGER NOT NULL REFERENCES experiments (key),
  version INTEGER NOT NULL CHECK (version >= 1),
  plan_sha TEXT NOT NULL,
  -- The version of the plan language that it was accepted under.
  language INTEGER NOT NULL,
  hold INTEGER NOT NULL CHECK (hold IN (0, 1)),
  keep_open INTEGER NOT NULL CHECK (keep_open IN (0, 1)),
  description TEXT,
  tags TEXT NOT NULL,
  parameters TEXT,
  -- W3C Trace Context of the plan's message, which its runs and results carry as well.
  traceparent TEXT,
  plan BLOB NOT NULL,
  base TEXT,
  CONSTRAINT first_version_has_the_base CHECK ((version = 1) = (base IS NOT NULL)),
  UNIQUE (experiment, version)
) STRICT;

-- The last published status of each experiment, to show experiments that ended long ago.
CREATE TABLE statuses (
  experiment INTEGER PRIMARY KEY REFERENCES experiments (key),
  document TEXT NOT NULL
) STRICT;

-- Parameters, stored once for all replicates of a point.
CREATE TABLE points (
  experiment INTEGER NOT NULL REFERENCES experiments (key),
  point INTEGER NOT NULL CHECK (point >= 0),
  params TEXT NOT NULL,
  run_id_suffix TEXT,
  labels TEXT,
  PRIMARY KEY (experiment, point)
) STRICT, WITHOUT ROWID;

-- By which the points of a new version of a plan are found among those that are there; only of experiments that were
-- extended. `version` is the last version of the plan that has the point.
CREATE TABLE point_identities (
  experiment INTEGER NOT NULL,
  point INTEGER NOT NULL,
  digest TEXT NOT NULL,
  version INTEGER NOT NULL,
  PRIMARY KEY (experiment, point),
  FOREIGN KEY (experiment, point) REFERENCES points (experiment, point)
) STRICT, WITHOUT ROWID;

CREATE INDEX point_identities_digest ON point_identities (experiment, digest, version);

-- One row for each attempt at a job. The simulation id is a function of the key and is not stored.
CREATE TABLE runs (
  experiment INTEGER NOT NULL,
  point INTEGER NOT NULL,
  replicate INTEGER NOT NULL CHECK (replicate >= 0),
  attempt INTEGER NOT NULL CHECK (attempt >= 1),
  seed INTEGER NOT NULL,
  state TEXT NOT NULL DEFAULT 'pending',
  current INTEGER NOT NULL DEFAULT 1,
  due_ms INTEGER NOT NULL DEFAULT 0,
  submitted_ms INTEGER,
  started_ms INTEGER,
  finished_ms INTEGER,
  elapsed_ms INTEGER NOT NULL DEFAULT 0 CHECK (elapsed_ms >= 0),
  stop_reason TEXT,
  error_kind TEXT,
  error_message TEXT,
  retryable INTEGER,
  metrics TEXT,
  artifacts TEXT,
  -- What a completed run still lacks: metrics that arrive in separate events.
  waiting TEXT,
  model_version TEXT,
  config_sha BLOB CHECK (config_sha IS NULL OR length(config_sha) = 32),
  ended_seq INTEGER,
  job_revision INTEGER NOT NULL DEFAULT 0 CHECK (job_revision >= 0),
  -- Its job is cancelled, and it may end by itself.
  drains INTEGER NOT NULL DEFAULT 0 CHECK (drains IN (0, 1)),
  -- The orchestrator confirmed a PAUSE.
  suspended INTEGER NOT NULL DEFAULT 0 CHECK (suspended IN (0, 1)),
  host TEXT,
  slot TEXT,
  -- How far it was when it last reported, in units of its own.
  step REAL,
  total REAL,
  -- Why its job doesn't count.
  excluded TEXT,
  PRIMARY KEY (experiment, point, replicate, attempt),
  FOREIGN KEY (experiment, point) REFERENCES points (experiment, point),
  CONSTRAINT run_state_is_known_and_finished_when_ended CHECK (CASE WHEN finished_ms IS NULL
    THEN state = 'pending' OR state IN ('submitting', 'submitted', 'running')
    ELSE state IN ('completed', 'failed', 'cancelled', 'lost') END),
  CONSTRAINT pending_stands_for_its_job CHECK (current = 1 OR (current = 0 AND state <> 'pending')),
  CONSTRAINT end_is_numbered_on_the_standing_run
    CHECK (ended_seq IS NULL OR (current = 1 AND finished_ms IS NOT NULL AND ended_seq >= 1 AND job_revision >= 1)),
  CONSTRAINT error_kind_is_known CHECK (error_kind IS NULL OR (state <> 'completed' AND error_kind IN
    ('simulation', 'infeasible', 'infrastructure', 'timeout', 'stopped', 'refused', 'lost'))),
  CONSTRAINT only_completed_runs_wait
    CHECK (waiting IS NULL OR (state = 'completed' AND waiting IN ('awaiting', 'missing'))),
  CONSTRAINT awaiting_is_no_end CHECK (ended_seq IS NULL OR waiting IS NOT 'awaiting'),
  CONSTRAINT stop_reason_is_known CHECK (stop_reason IS NULL OR stop_reason IN
    ('timeout', 'superseded', 'failing_fast', 'cancelled', 'straggler', 'raced')),
  CONSTRAINT only_open_runs_drain CHECK (drains = 0 OR state <> 'pending'),
  CONSTRAINT only_open_runs_are_suspended CHECK (suspended = 0 OR state IN ('submitting', 'submitted', 'running')),
  CONSTRAINT retryable_is_a_boolean CHECK (retryable IS NULL OR retryable IN (0, 1))
) STRICT, WITHOUT ROWID;

CREATE INDEX runs_due ON runs (experiment, due_ms, point, replicate) WHERE state = 'pending';
CREATE INDEX runs_open ON runs (experiment, point, replicate) WHERE state IN ('submitting', 'submitted', 'running');
CREATE INDEX runs_awaiting ON runs (experiment, point, replicate) WHERE waiting = 'awaiting';
CREATE UNIQUE INDEX runs_ended ON runs (experiment, ended_seq) WHERE ended_seq IS NOT NULL;
-- Few or none: points that return look for them.
CREATE INDEX runs_excluded ON runs (experiment, point, replicate) WHERE excluded IS NOT NULL AND attempt = 1;
-- The same work with the same model: its results can be used again.
CREATE INDEX runs_reuse ON runs (config_sha, model_version) WHERE state = 'completed' AND config_sha IS NOT NULL;

-- The tracked metrics of each point over its jobs that are completed and not excluded, kept as results are recorded.
-- `metric` is a position in the experiment's list, `m2` the sum of squared deviations from the mean, `missing` how many
-- of these jobs lack the metric.
CREATE TABLE point_metrics (
  experiment INTEGER NOT NULL,
  point INTEGER NOT NULL,
  metric INTEGER NOT NULL,
  n INTEGER NOT NULL,
  -- Null where values are so large that it can't be computed.
  mean REAL,
  m2 REAL,
  min REAL,
  max REAL,
  missing INTEGER NOT NULL,
  PRIMARY KEY (experiment, point, metric)
) STRICT, WITHOUT ROWID;

-- Events of unknown runs; the run may become known later.
CREATE TABLE parked_events (
  id INTEGER PRIMARY KEY,
  simulation_id TEXT NOT NULL,
  subject TEXT NOT NULL,
  seq INTEGER NOT NULL,
  received_ms INTEGER NOT NULL,
  data BLOB NOT NULL,
  UNIQUE (simulation_id, subject, seq)
) STRICT;

CREATE INDEX parked_events_received ON parked_events (received_ms);

-- Changes of experiments, in the order in which they were recorded; one row for each request and experiment.
CREATE TABLE changes (
  number INTEGER PRIMARY KEY,
  request_id TEXT NOT NULL,
  experiment INTEGER NOT NULL REFERENCES experiments (key),
  verb TEXT NOT NULL,
  request TEXT NOT NULL,
  received_ms INTEGER NOT NULL,
  -- What the reply says: whether it changes anything, and how the experiment stands after it.
  changed INTEGER NOT NULL CHECK (changed IN (0, 1)),
  state TEXT NOT NULL CONSTRAINT change_state_is_known
    CHECK (state IN ('accepted', 'running', 'paused', 'completed', 'failed', 'cancelled')),
  round INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  -- Jobs up to this one are judged; null: all are.
  judged_point INTEGER,
  judged_replicate INTEGER,
  -- How many jobs went from one state to another: JSON, {from: {to: n}}.
  counts TEXT NOT NULL,
  added INTEGER,
  withdrawn INTEGER,
  unchanged INTEGER,
  -- Why it couldn't be carried out after all.
  refused TEXT,
  -- When nothing of it was in flight any more; null: something is.
  applied_ms INTEGER,
  -- How many of its two documents are published.
  published INTEGER NOT NULL DEFAULT 0 CHECK (published BETWEEN 0 AND 2),
  CONSTRAINT judged_is_a_job CHECK ((judged_point IS NULL) = (judged_replicate IS NULL)),
  UNIQUE (request_id, experiment)
) STRICT;

CREATE INDEX changes_latest ON changes (experiment, number);
CREATE INDEX changes_open ON changes (experiment, number) WHERE applied_ms IS NULL;
CREATE INDEX changes_unpublished ON changes (number) WHERE published < 1 + (applied_ms IS NOT NULL);

-- What the worker remembers about the streams and other external state.
CREATE TABLE remembered (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The broker's consumers are marked with this identity, so that another worker can't use them by mistake.
INSERT INTO remembered (name, value) VALUES ('identity', lower(hex(randomblob(16))));

-- The views. Times are RFC 3339 in UTC; a run's id is derived from its key.
CREATE VIEW v_experiments AS
SELECT
  experiment_id, name AS experiment_name, "group", state, reason, pauses, cancel, kept_open, round, points, jobs,
  replicates, expanded_points, metrics AS metrics_to_track, goal_metric, goal, overrides, tags, description, parameters,
  experiments.plan_sha, plan_version, language, traceparent,
  strftime('%Y-%m-%dT%H:%M:%S', created_ms / 1000, 'unixepoch') || printf('.%03dZ', created_ms % 1000) AS created_at,
  strftime('%Y-%m-%dT%H:%M:%S', started_ms / 1000, 'unixepoch') || printf('.%03dZ', started_ms % 1000) AS started_at,
  strftime('%Y-%m-%dT%H:%M:%S', finished_ms / 1000, 'unixepoch') || printf('.%03dZ', finished_ms % 1000) AS finished_at,
  (finished_ms - started_ms) / 1000.0 AS duration_seconds
FROM experiments JOIN plans ON plans.experiment = experiments.key AND plans.version = experiments.plan_version;

CREATE VIEW v_runs AS
SELECT
  experiment_id, name AS experiment_name, "group",
  printf('%s-p%06d-r%03d-a%d', experiment_id, runs.point, replicate, attempt) AS simulation_id,
  runs.point, replicate, attempt,
  (SELECT count(*) FROM runs AS every WHERE every.experiment = runs.experiment
    AND every.point = runs.point AND every.replicate = runs.replicate) AS attempts,
  current, seed, runs.state, waiting, error_kind, error_message, retryable, stop_reason,
  params, runs.metrics, artifacts, labels, run_id_suffix,
  strftime('%Y-%m-%dT%H:%M:%S', nullif(due_ms, 0) / 1000, 'unixepoch') || printf('.%03dZ', due_ms % 1000) AS due_at,
  strftime('%Y-%m-%dT%H:%M:%S', submitted_ms / 1000, 'unixepoch')
    || printf('.%03dZ', submitted_ms % 1000) AS submitted_at,
  strftime('%Y-%m-%dT%H:%M:%S', runs.started_ms / 1000, 'unixepoch')
    || printf('.%03dZ', runs.started_ms % 1000) AS started_at,
  strftime('%Y-%m-%dT%H:%M:%S', runs.finished_ms / 1000, 'unixepoch')
    || printf('.%03dZ', runs.finished_ms % 1000) AS finished_at,
  (runs.finished_ms - runs.started_ms) / 1000.0 AS duration_seconds,
  host, slot, step, total, drains, suspended, excluded,
  nullif(lower(hex(config_sha)), '') AS config_sha, model_version, runs.ended_seq, job_revision
FROM experiments
CROSS JOIN points ON points.experiment = experiments.key
CROSS JOIN runs ON runs.experiment = experiments.key AND runs.point = points.point;

-- The current run of each job.
CREATE VIEW v_jobs AS
SELECT
  experiment_id, experiment_name, "group", simulation_id, point, replicate, attempt, attempts, seed,
  CASE waiting WHEN 'awaiting' THEN 'awaiting_metrics' WHEN 'missing' THEN 'failed' ELSE state END AS state,
  CASE waiting WHEN 'missing' THEN 'metrics_missing' ELSE error_kind END AS error_kind,
  error_message, params, metrics, artifacts, labels, run_id_suffix,
  submitted_at, started_at, finished_at, duration_seconds, host, slot, step, total, excluded, config_sha, model_version,
  ended_seq, job_revision
FROM v_runs WHERE current = 1;

-- One row for each metric of a completed job.
CREATE VIEW v_metrics AS
SELECT experiment_id, simulation_id, point, replicate, seed, measured.key AS metric, measured.value, excluded
FROM v_jobs CROSS JOIN json_each(v_jobs.metrics) AS measured
WHERE state = 'completed';

-- One row for each completed job that isn't excluded and tracked metric; null if the job lacks the metric.
CREATE VIEW v_tracked AS
SELECT experiment_id, point, replicate, tracked.value AS metric, measured.value
FROM experiments
CROSS JOIN runs ON runs.experiment = experiments.key
CROSS JOIN json_each(experiments.metrics) AS tracked
LEFT JOIN json_each(runs.metrics) AS measured ON measured.key = tracked.value
WHERE current = 1 AND runs.state = 'completed' AND waiting IS NULL AND excluded IS NULL;

-- The tracked metrics of each point. Newton's method, from above, gives the square root of the variance, because not
-- every SQLite has sqrt.
CREATE VIEW v_point_metrics AS
SELECT
  experiment_id, point, tracked.value AS metric, n, mean,
  CASE WHEN n > 1 THEN (
    WITH RECURSIVE newton (x, variance) AS (
      SELECT CASE WHEN m2 > 0 THEN max(m2 / (n - 1), 1.0) ELSE 0.0 END, m2 / (n - 1)
      UNION ALL SELECT (x + variance / x) / 2, variance FROM newton WHERE (x + variance / x) / 2 < x
    ) SELECT min(x) FROM newton
  ) END AS std,
  min, max, missing
FROM experiments
CROSS JOIN point_metrics ON point_metrics.experiment = experiments.key AND n + missing > 0
CROSS JOIN json_each(experiments.metrics) AS tracked ON tracked.key = point_metrics.metric;

-- One row for each point, with its jobs counted as in a status.
CREATE VIEW v_points AS
SELECT
  experiment_id, name AS experiment_name, "group", points.point, params, labels, run_id_suffix,
  count(*) AS replicates,
  count(*) FILTER (WHERE runs.state = 'pending') AS pending,
  count(*) FILTER (WHERE runs.state IN ('submitting', 'submitted')) AS submitted,
  count(*) FILTER (WHERE runs.state = 'running') AS running,
  count(*) FILTER (WHERE waiting = 'awaiting') AS awaiting_metrics,
  count(*) FILTER (WHERE runs.state = 'completed' AND waiting IS NULL) AS completed,
  count(*) FILTER (WHERE waiting = 'missing' OR (runs.state = 'failed' AND error_kind IS NOT 'infeasible')) AS failed,
  count(*) FILTER (WHERE runs.state = 'failed' AND error_kind IS 'infeasible') AS infeasible,
  count(*) FILTER (WHERE runs.state = 'cancelled') AS cancelled,
  count(*) FILTER (WHERE runs.state = 'lost') AS lost,
  count(excluded) AS excluded
FROM experiments
CROSS JOIN points ON points.experiment = experiments.key
CROSS JOIN runs ON runs.experiment = experiments.key AND runs.point = points.point AND current = 1
GROUP BY experiment_id, points.point;

-- What people changed, in the order in which it was recorded.
CREATE VIEW v_changes AS
SELECT
  changes.number, experiment_id, request_id, verb, changed, changes.state, changes.round, changes.revision, counts, added,
  withdrawn, unchanged, refused,
  strftime('%Y-%m-%dT%H:%M:%S', received_ms / 1000, 'unixepoch') || printf('.%03dZ', received_ms % 1000) AS received_at,
  strftime('%Y-%m-%dT%H:%M:%S', applied_ms / 1000, 'unixepoch') || printf('.%03dZ', applied_ms % 1000) AS applied_at,
  request
FROM changes JOIN experiments ON experiments.key = changes.experiment;
