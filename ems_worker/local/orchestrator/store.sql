-- name: schema
-- Every run that this orchestrator has accepted, and the events that the broker hasn't acknowledged.
CREATE TABLE IF NOT EXISTS runs (
  number INTEGER PRIMARY KEY AUTOINCREMENT,   -- the order of arrival
  simulation_id TEXT NOT NULL UNIQUE,
  config_sha TEXT NOT NULL,
  experiment_id TEXT NOT NULL,
  simulator TEXT NOT NULL DEFAULT '',         -- the name that the plan gave; empty for the orchestrator's own
  seed TEXT NOT NULL,                         -- text: an unsigned 64-bit number is too large for SQLite
  config BLOB,                                -- dropped when the run ends: until then it may start again
  state TEXT NOT NULL DEFAULT 'queued'
    CHECK (state IN ('queued', 'starting', 'running', 'paused', 'held', 'completed', 'failed')),
  stop_requested INTEGER NOT NULL DEFAULT 0 CHECK (stop_requested IN (0, 1)),
  interrupted INTEGER NOT NULL DEFAULT 0      -- ended by a shutdown: the next start of the orchestrator starts it again
    CHECK (interrupted IN (0, 1)),
  starts INTEGER NOT NULL DEFAULT 0,          -- how often it got a slot
  host TEXT NOT NULL DEFAULT '',              -- where it last got one
  slot TEXT NOT NULL DEFAULT '',
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
INSERT INTO runs (simulation_id, config_sha, experiment_id, simulator, seed, config)
VALUES (:simulation_id, :config_sha, :experiment_id, :simulator, :seed, :config)
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
UPDATE runs SET state = 'starting', starts = starts + 1, host = :host, slot = :slot
WHERE simulation_id = :simulation_id AND state = 'queued';

-- name: started
-- The process of the run has started.
UPDATE runs SET state = 'running', started_ns = :started_ns, model_version = :model_version
WHERE simulation_id = :simulation_id AND state = 'starting';

-- name: pause
-- The processes of the run are suspended. One that is to be stopped must run, to handle SIGTERM.
UPDATE runs SET state = 'paused'
WHERE simulation_id = :simulation_id AND state = 'running' AND stop_requested = 0;

-- name: resume
-- The processes of the run are resumed.
UPDATE runs SET state = 'running' WHERE simulation_id = :simulation_id AND state = 'paused';

-- name: hold
-- The run leaves the queue.
UPDATE runs SET state = 'held' WHERE simulation_id = :simulation_id AND state = 'queued' AND stop_requested = 0;

-- name: release
-- The run goes back to the queue.
UPDATE runs SET state = 'queued' WHERE simulation_id = :simulation_id AND state = 'held';

-- name: interrupt
-- A shutdown is about to end the processes of the run. Recorded before they get a signal.
UPDATE runs SET interrupted = 1
WHERE simulation_id = :simulation_id AND state IN ('starting', 'running', 'paused') AND stop_requested = 0;

-- name: restart
-- The processes of an interrupted run are gone, and its directory is empty. A paused one waits for RESUME.
UPDATE runs SET state = CASE state WHEN 'paused' THEN 'held' ELSE 'queued' END, interrupted = 0, started_ns = 0
WHERE simulation_id = :simulation_id AND interrupted = 1 AND finished_ns = 0;

-- name: left
-- How many runs the next start of the orchestrator starts again, and how many wait in the queue.
SELECT coalesce(sum(interrupted), 0), coalesce(sum(state = 'queued'), 0) FROM runs WHERE finished_ns = 0;

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
