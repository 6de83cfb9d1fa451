-- Experiments that were removed. Their rows in `experiments` and `changes` stay: their ids are taken for ever, and a plan
-- that is delivered again doesn't bring them back. Everything else of them is deleted.
CREATE TABLE removals (
  experiment INTEGER PRIMARY KEY REFERENCES experiments (key),
  removed_ms INTEGER NOT NULL
) STRICT;

-- Those that are older than the retention.
CREATE INDEX experiments_ended ON experiments (finished_ms) WHERE finished_ms IS NOT NULL;
