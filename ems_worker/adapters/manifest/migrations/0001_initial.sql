-- The manifest's first schema. Times are milliseconds since the Unix epoch; JSON is text.
-- docs/manifest.md explains the views, which are the contract; the tables are the worker's own and may change.

PRAGMA application_id = 0x454d5357;  -- 'EMSW': tells this file from any other program's database

-- One plan message each, and what was decided about it.
CREATE TABLE submissions (
  stream_created_ns INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  stream TEXT NOT NULL,
  subject TEXT NOT NULL,
  received_ms INTEGER NOT NULL,
  verdict TEXT NOT NULL CONSTRAINT verdict_is_known CHECK (verdict IN ('accepted', 'duplicate', 'rejected')),
  document TEXT NOT NULL,
  experiment_id TEXT,
  plan_sha TEXT,
  publisher TEXT,
  reply_to TEXT,
  published INTEGER NOT NULL DEFAULT 0 CHECK (published IN (0, 1)),
  PRIMARY KEY (stream_created_ns, seq),
  CONSTRAINT accepted_names_experiment CHECK (verdict <> 'accepted' OR experiment_id IS NOT NULL)
) STRICT;

CREATE INDEX submissions_unpublished ON submissions (received_ms, stream_created_ns, seq) WHERE published = 0;

-- An experiment's identity and all that changes. Written often, so it stays small: see plans.
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
  -- The first revision of a status that can tell of the present state.
  state_revision INTEGER NOT NULL DEFAULT 0,
  ended_seq INTEGER NOT NULL DEFAULT 0,
  published_seq INTEGER NOT NULL DEFAULT 0,
  expanded_points INTEGER NOT NULL DEFAULT 0,
  started_ms INTEGER,
  finished_ms INTEGER,
  reason TEXT,
  CONSTRAINT experiment_finished_when_ended
    CHECK ((state IN ('completed', 'failed', 'cancelled')) = (finished_ms IS NOT NULL)),
  CONSTRAINT experiment_started_when_running CHECK (state <> 'running' OR started_ms IS NOT NULL),
  CONSTRAINT published_revision_was_composed CHECK (published_revision BETWEEN 0 AND revision),
  CONSTRAINT published_seq_was_given CHECK (published_seq BETWEEN 0 AND ended_seq),
  CONSTRAINT expanded_points_exist CHECK (expanded_points BETWEEN 0 AND points)
) STRICT;

-- What a worker takes up at its start.
CREATE INDEX experiments_unfinished ON experiments (key)
  WHERE finished_ms IS NULL OR published_seq < ended_seq
    OR published_revision < revision OR published_revision < state_revision;

-- What never changes of an experiment and may be large: an update of experiments would rewrite it each time.
CREATE TABLE plans (
  experiment INTEGER PRIMARY KEY REFERENCES experiments (key),
  description TEXT,
  tags TEXT NOT NULL,
  parameters TEXT,
  plan BLOB NOT NULL,
  base TEXT NOT NULL
) STRICT;

-- Parameters once a point, for all its replicates.
CREATE TABLE points (
  experiment INTEGER NOT NULL REFERENCES experiments (key),
  point INTEGER NOT NULL CHECK (point >= 0),
  params TEXT NOT NULL,
  run_id_suffix TEXT,
  labels TEXT,
  PRIMARY KEY (experiment, point)
) STRICT, WITHOUT ROWID;

-- One attempt at a job each. The simulation id is a function of the key and not stored.
CREATE TABLE runs (
  experiment INTEGER NOT NULL,
  point INTEGER NOT NULL,
  replicate INTEGER NOT NULL CHECK (replicate >= 0),
  attempt INTEGER NOT NULL CHECK (attempt >= 1),
  seed INTEGER NOT NULL,
  state TEXT NOT NULL DEFAULT 'pending' CONSTRAINT run_state_is_known CHECK (state IN
    ('pending', 'submitting', 'submitted', 'running', 'completed', 'failed', 'cancelled', 'lost')),
  current INTEGER NOT NULL DEFAULT 1 CHECK (current IN (0, 1)),
  due_ms INTEGER NOT NULL DEFAULT 0,
  submitted_ms INTEGER,
  started_ms INTEGER,
  finished_ms INTEGER,
  elapsed_ms INTEGER NOT NULL DEFAULT 0 CHECK (elapsed_ms >= 0),
  stop_reason TEXT CHECK (stop_reason IN ('timeout', 'unwanted')),
  error_kind TEXT CONSTRAINT error_kind_is_known CHECK (error_kind IN
    ('simulation', 'infeasible', 'infrastructure', 'timeout', 'stopped', 'refused', 'lost')),
  error_message TEXT,
  retryable INTEGER CHECK (retryable IN (0, 1)),
  metrics TEXT,
  artifacts TEXT,
  model_version TEXT,
  config_sha BLOB CHECK (length(config_sha) = 32),
  ended_seq INTEGER CHECK (ended_seq >= 1),
  job_revision INTEGER NOT NULL DEFAULT 0 CHECK (job_revision >= 0),
  PRIMARY KEY (experiment, point, replicate, attempt),
  FOREIGN KEY (experiment, point) REFERENCES points (experiment, point),
  CONSTRAINT run_finished_when_ended
    CHECK ((state IN ('completed', 'failed', 'cancelled', 'lost')) = (finished_ms IS NOT NULL)),
  CONSTRAINT pending_stands_for_its_job CHECK (state <> 'pending' OR current = 1),
  CONSTRAINT end_is_numbered_on_the_standing_run
    CHECK (ended_seq IS NULL OR (current = 1 AND finished_ms IS NOT NULL AND job_revision >= 1)),
  CONSTRAINT completed_has_no_error CHECK (state <> 'completed' OR error_kind IS NULL)
) STRICT, WITHOUT ROWID;

CREATE INDEX runs_due ON runs (experiment, due_ms, point, replicate) WHERE state = 'pending';
CREATE INDEX runs_open ON runs (experiment, point, replicate) WHERE state IN ('submitting', 'submitted', 'running');
CREATE UNIQUE INDEX runs_ended ON runs (experiment, ended_seq) WHERE ended_seq IS NOT NULL;

-- Events of runs that are not known (yet), oldest first.
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

-- What the worker remembers about the outside.
CREATE TABLE remembered (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
