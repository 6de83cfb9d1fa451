-- Rules of the core as expressions over a row of `runs`, and how aggregates are added up, each once for all statements.
-- tests/contract/test_manifest_rules.py compares them with the core's own, over every combination of the columns.

-- name: bucket
-- What a status counts a job as by its current run: core.lifecycle.tally.bucket.
CASE
  WHEN waiting IS NULL THEN
    CASE WHEN runs.state = 'failed' AND error_kind = 'infeasible' THEN 'infeasible' ELSE runs.state END
  WHEN waiting = 'awaiting' THEN 'awaiting_metrics' ELSE 'failed' END;

-- name: retried
-- Whether a person's retry without a `where` takes the job of this current run: core.lifecycle.job.retried.
((waiting = 'missing' OR runs.state = 'lost' OR (runs.state = 'failed' AND error_kind IS NOT 'infeasible')
  OR (runs.state = 'cancelled' AND stop_reason = 'failing_fast'))
  AND NOT (drains = 1 OR coalesce(stop_reason, '') IN ('cancelled', 'straggler', 'raced')));

-- name: unsettled
-- Whether the job of this current run hasn't ended: the contrary of core.lifecycle.run.Run.settled.
(finished_ms IS NULL OR waiting IS 'awaiting');

-- name: aggregated
-- Whether the metrics of this run count in aggregates: metrics.aggregated.
(current = 1 AND runs.state = 'completed' AND waiting IS NULL AND runs.excluded IS NULL);

-- name: open
-- Whether the orchestrator may have the run: core.lifecycle.run.OPEN. The index runs_open has the same condition.
runs.state IN ('submitting', 'submitted', 'running');

-- name: measured
-- The aggregate of one value of a metric (n, mean, m2, min, max, missing); without a value it is missing.
measured.value IS NOT NULL,
  measured.value * 1.0, iif(measured.value IS NULL, NULL, 0.0), measured.value * 1.0, measured.value * 1.0,
  measured.value IS NULL;

-- name: added
-- An aggregate with the one value of `excluded` added by Welford's method: core.lifecycle.aggregate.Aggregate.add.
n = n + excluded.n,
  mean = iif(excluded.n = 0, mean, iif(n = 0, excluded.mean, mean + (excluded.mean - mean) / (n + 1))),
  m2 = iif(excluded.n = 0, m2, iif(n = 0, 0.0,
    m2 + (excluded.mean - mean) * (excluded.mean - (mean + (excluded.mean - mean) / (n + 1))))),
  min = coalesce(min(min, excluded.min), min, excluded.min),
  max = coalesce(max(max, excluded.max), max, excluded.max),
  missing = missing + excluded.missing;
