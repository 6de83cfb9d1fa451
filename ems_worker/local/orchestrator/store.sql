-- name: schema
-- Every run that this orchestrator has accepted, and the events that the broker hasn't acknowledged.
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
-- Stores a run as queued, unless its id is known.
INSERT INTO runs (simulation_id, config_sha, experiment_id, seed, config)
VALUES (:simulation_id, :config_sha, :experiment_id, :seed, :config)
ON CONFLICT (simulation_id) DO NOTHING;

-- name: sha_of
-- The config_sha of a known id.
SELECT config_sha FROM runs WHERE simulation_id = :simulation_id;

-- name: open_runs
-- The runs that a restart continues, in the order of arrival.
SELECT * FROM runs WHERE finished_ns = 0 ORDER BY number;

-- name: get
-- One run.
SELECT * FROM runs WHERE simulation_id = :simulation_id;

-- name: begin
-- A queued run gets a slot. Recorded before its process is spawned.
UPDATE runs SET state = 'starting' WHERE simulation_id = :simulation_id AND state = 'queued';

-- name: started
-- The process of the run has started; the configuration is in its directory.
UPDATE runs SET state = 'running', started_ns = :started_ns, model_version = :model_version, config = NULL
WHERE simulation_id = :simulation_id AND state = 'starting';

-- name: pause
-- The processes of the run are suspended.
UPDATE runs SET state = 'paused' WHERE simulation_id = :simulation_id AND state = 'running';

-- name: resume
-- The processes of the run are resumed.
UPDATE runs SET state = 'running' WHERE simulation_id = :simulation_id AND state = 'paused';

-- name: request_stop
-- The run ends as stopped, whatever its processes do from now on.
UPDATE runs SET stop_requested = 1 WHERE simulation_id = :simulation_id AND finished_ns = 0;

-- name: end
-- The first end of a run is final.
UPDATE runs SET state = :state, finished_ns = :finished_ns, metrics = :metrics, artifacts = :artifacts,
  error_kind = :error_kind, message = :message, retryable = :retryable, config = NULL
WHERE simulation_id = :simulation_id AND finished_ns = 0;

-- name: post
-- Stores an event for the broker, unless it is stored already.
INSERT INTO outbox (simulation_id, subject, message_id, body)
VALUES (:simulation_id, :subject, :message_id, :body) ON CONFLICT (message_id) DO NOTHING;

-- name: unpublished
-- The oldest events that the broker hasn't acknowledged.
SELECT * FROM outbox ORDER BY number LIMIT :limit;

-- name: published
-- The broker has acknowledged this event.
DELETE FROM outbox WHERE number = :number;

-- name: expired
-- Runs that ended before the given time and whose events are all published.
SELECT simulation_id FROM runs WHERE finished_ns > 0 AND finished_ns < :before_ns
  AND simulation_id NOT IN (SELECT simulation_id FROM outbox) LIMIT :limit;

-- name: forget
-- Deletes a run, so that its id may be used again.
DELETE FROM runs WHERE simulation_id = :simulation_id;
