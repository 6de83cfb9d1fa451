"""A real orchestrator for one machine: every simulation is an operating system process in a slot.

`python -m ems_worker.local.orchestrator --help` starts it; docs/orchestrator.md says what it promises. Top down:

- `server` puts the parts together and owns their life,
- `access` says who may call,
- `service` is the gRPC face: it answers from the store and hands work to the slots,
- `slots` decides what runs now and sees every run through to its end,
- `simulation` is one run's directory and processes; `result` judges how they ended,
- `store` is the durable truth: a run is in it before its caller hears so, an event before its run is called ended,
- `outbox` brings the stored events to JetStream, however often the broker or this process goes away.
"""
