"""A real orchestrator for one machine: every simulation is an operating system process in a slot.

`python -m ems_worker.local.orchestrator --help` shows how to start it; docs/orchestrator.md describes its guarantees.
From top to bottom:

- `server` assembles the parts, starts and stops them,
- `access` decides who may call,
- `service` implements the gRPC service: it answers from the store and hands work to the slots,
- `slots` decides which runs execute now; `carrier` carries each of them through to its end,
- `simulation` is the directory and the processes of one run; `result` judges how they ended,
- `output` reads what runs have written,
- `progress` reports how far open runs have come,
- `store` is the durable state, in a `database`: a run is stored before its caller gets a reply, an event before its
  run counts as ended,
- `outbox` publishes the stored events to JetStream, and survives restarts of the broker and of this process.
"""
