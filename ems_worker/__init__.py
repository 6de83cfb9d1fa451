"""ems-worker runs experiments on simulations, from a plan to its results.

How a plan passes through the worker:

1. `adapters.jetstream` delivers a message of `ems.experiment.submit`. `service.intake` reads and checks it
   (`adapters.yaml_reader`, `core.language`, `core.points`), records the decision in the manifest, and then acknowledges
   the message.
2. `service.expand` writes points and their first runs into the manifest in chunks (`core.points.space`, `core.seeds`).
3. `service.dispatch` claims due runs within the run window (`core.lifecycle.schedule`). `service.submit` renders their
   configurations (`core.points.render`) and sends them to the orchestrator (`adapters.orchestrator`);
   `service.answers` records its answers (`core.lifecycle.outcome`).
4. `service.track` receives the events of runs. `service.ledger` applies them by one table of transitions
   (`core.lifecycle.run`, `core.lifecycle.job`).
5. `service.limits` stops runs that take too long, and `service.reconcile` asks the orchestrator about silent ones.
   Failed runs are retried.
6. `service.report` publishes results, points and statuses (`core.documents`). `service.queries` answers queries.

After a crash, `service.recovery` continues from the manifest: every step is recorded before it is announced.
"""

__version__: str


def __getattr__(name: str) -> str:
    """The version is looked up when it is asked for: that takes as long as half of the client's other imports."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("ems-worker")
