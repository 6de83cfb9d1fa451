-- name: schema
-- Every run this orchestrator took on, and the events that haven't reached the broker yet.
CREATE TABLE IF NOT EXISTS runs (
  number INTEGER PRIMARY KEY AUTOINCREMENT,   -- the order of arrival
  simulation_id TEXT NOT NULL UNIQUE,
  config_sha TEXT NOT NULL,
  experiment_id TEXT NOT NULL,
  seed TEXT NOT NULL,                         -- text: an unsigned 64-bit number is too large for SQLite
  config BLOB,                                -- dropped when the run starts: it is in the run's directory then
  state TEXT NOT NULL DEFAULT 'queued'
    CHECK (state IN ('queued', 'starting', 'running', 'paused', 'completed', 'failed')),
  stop_requested INTEGER NOT NULL DEFAULT 0 CHECK (stop_requested IN (0, 1)),
  started_ns INTEGER NOT NULL DEFAULT 0,
  finished_ns INTEGER NOT NULL DEFAULT 0,
  metrics TEXT NOT NULL DEFAULT '{}',
  artifacts TEXT NOT NULL DEFAULT '{}',
  error_kind TEXT CHECK (error_kind IN ('simulation', 'infeasible', 'infrastructure', 'stopped')),
  message TEXT NOT NULL DEFAULT '',
  retryable INTEGER CHECK (retryable IN (0, 1)),
  model_version TEXT NOT NULL DEFAULT '',
  CHECK ((state IN ('completed', 'failed')) = (finished_ns > 0)),
  CHECK ((state = 'failed') = (error_kind IS NOT NULL))
) STRICT;
CREATE INDEX IF NOT EXISTS runs_open ON runs (number) WHERE finished_ns = 0;
CREATE INDEX IF NOT EXISTS runs_ended ON runs (finished_ns) WHERE finished_ns > 0;
CREATE TABLE IF NOT EXISTS outbox (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  simulation_id TEXT NOT NULL,
  subject TEXT NOT NULL,
  message_id TEXT NOT NULL UNIQUE,
  body BLOB NOT NULL
) STRICT;

-- name: admit
-- Takes a run on, unless its id is known.
INSERT INTO runs (simulation_id, config_sha, experiment_id, seed, config)
VALUES (:simulation_id, :config_sha, :experiment_id, :seed, :config)
ON CONFLICT (simulation_id) DO NOTHING;

-- name: sha_of
-- The work that a known id stands for.
SELECT config_sha FROM runs WHERE simulation_id = :simulation_id;

-- name: open_runs
-- What a restart goes on with, in the order of arrival.
SELECT * FROM runs WHERE finished_ns = 0 ORDER BY number;

-- name: get
-- One run.
SELECT * FROM runs WHERE simulation_id = :simulation_id;

-- name: begin
-- A queued run gets its slot: recorded before anything is spawned.
UPDATE runs SET state = 'starting' WHERE simulation_id = :simulation_id AND state = 'queued';

-- name: started
-- The run's process is there; its configuration is in its directory.
UPDATE runs SET state = 'running', started_ns = :started_ns, model_version = :model_version, config = NULL
WHERE simulation_id = :simulation_id AND state = 'starting';

-- name: pause
-- The run's processes are held.
UPDATE runs SET state = 'paused' WHERE simulation_id = :simulation_id AND state = 'running';

-- name: resume
-- The run's processes go on.
UPDATE runs SET state = 'running' WHERE simulation_id = :simulation_id AND state = 'paused';

-- name: request_stop
-- Whatever the run's process does from here on, the run was stopped.
UPDATE runs SET stop_requested = 1 WHERE simulation_id = :simulation_id AND finished_ns = 0;

-- name: end
-- A run's first end stands.
UPDATE runs SET state = :state, finished_ns = :finished_ns, metrics = :metrics, artifacts = :artifacts,
  error_kind = :error_kind, message = :message, retryable = :retryable, config = NULL
WHERE simulation_id = :simulation_id AND finished_ns = 0;

-- name: post
-- An event for the broker; a repeated one is the same one.
INSERT INTO outbox (simulation_id, subject, message_id, body)
VALUES (:simulation_id, :subject, :message_id, :body) ON CONFLICT (message_id) DO NOTHING;

-- name: unpublished
-- The oldest events that the broker hasn't acknowledged.
SELECT * FROM outbox ORDER BY number LIMIT :limit;

-- name: published
-- The broker has this event.
DELETE FROM outbox WHERE number = :number;

-- name: expired
-- Runs that ended so long ago that their ids may be forgotten.
SELECT simulation_id FROM runs WHERE finished_ns > 0 AND finished_ns < :before_ns
  AND simulation_id NOT IN (SELECT simulation_id FROM outbox) LIMIT :limit;

-- name: forget
-- The id is free again.
DELETE FROM runs WHERE simulation_id = :simulation_id;
