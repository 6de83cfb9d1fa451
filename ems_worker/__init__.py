"""ems-worker: experiments on simulations, from a plan to its results.

A plan's way through the worker:

1. `adapters.jetstream` delivers a message of `ems.experiment.submit`; `service.accept` reads and checks it
   (`adapters.yaml_reader`, `core.plan`), records the decision in the manifest, and only then acknowledges it.
2. `service.expand` writes points and their first runs into the manifest, chunk by chunk (`core.space`, `core.seeds`).
3. `service.dispatch` claims due runs within the run window (`core.schedule`); `service.submit` renders their
   configurations (`core.render`), sends them to the orchestrator (`adapters.orchestrator`), and has its answers
   recorded (`core.outcome`).
4. `service.track` hears what becomes of them; `service.ledger` decides by the one table (`core.run`, `core.job`).
5. `service.limits` stops what takes too long, `service.reconcile` asks for what is silent; failed attempts get a next
   one.
6. `service.report` publishes results, points and status (`core.documents`); `service.queries` answers questions.

After a crash `service.recover` starts from the manifest: every step is recorded before it is announced.
"""

from importlib.metadata import version

__version__ = version("ems-worker")
