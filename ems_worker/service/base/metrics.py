"""The worker's Prometheus metrics; docs/monitoring.md describes them."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_CALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The metrics of one worker. /metrics serves those in `registry`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.submissions = Counter("ems_submissions", "Plan messages decided", ["decision"], registry=self.registry)
        self.jobs_expanded = Counter("ems_jobs_expanded", "Jobs recorded in the manifest", registry=self.registry)
        self.starts = Counter("ems_starts", "Start commands answered", ["outcome"], registry=self.registry)
        self.start_seconds = Histogram(
            "ems_start_seconds", "Duration of start calls", buckets=_CALL_BUCKETS, registry=self.registry
        )
        self.reconciled = Counter(
            "ems_reconciled", "Answers of the orchestrator about silent runs", ["verdict"], registry=self.registry
        )
        self.breaker_open = Gauge("ems_breaker_open", "1 while the breaker is open or probing", registry=self.registry)
        self.stops = Counter("ems_stops", "STOP commands sent", ["reason"], registry=self.registry)
        self.events = Counter("ems_events", "Run events received", ["verdict"], registry=self.registry)
        self.results = Counter("ems_results_published", "Result documents acknowledged", registry=self.registry)
        self.statuses = Counter("ems_statuses_published", "Status documents acknowledged", registry=self.registry)
        self.replies_refused = Counter(
            "ems_replies_refused", "Requests whose reply subject is not an allowed inbox", registry=self.registry
        )
        self.dead_letters = Counter(
            "ems_dead_letters", "Messages sent to the dead letters", ["kind"], registry=self.registry
        )
        self.open_runs = Gauge("ems_open_runs", "Runs in the run window", registry=self.registry)
        self.run_window = Gauge("ems_run_window", "Runs that may be open at once", registry=self.registry)
        self.rpc_window = Gauge(
            "ems_rpc_window",
            "gRPC calls that may be open at once, fewer than configured at overload",
            registry=self.registry,
        )
        self.experiments = Gauge(
            "ems_live_experiments", "Experiments in memory: not ended, or with news to publish", registry=self.registry
        )
        self.broker_connected = Gauge("ems_broker_connected", "1 while connected to NATS", registry=self.registry)
        self.problem = Gauge(
            "ems_trouble", "1 while /readyz reports a problem with this part", ["part"], registry=self.registry
        )
        self.commit_seconds = Histogram(
            "ems_manifest_commit_seconds", "Duration of a transaction", buckets=_CALL_BUCKETS, registry=self.registry
        )
        self.written = Counter("ems_manifest_rows", "Rows written", registry=self.registry)
        self.commits = Counter("ems_manifest_commits", "Transactions of the manifest", registry=self.registry)
