"""A whole platform on one machine: a nats-server, a real orchestrator, a small fish simulator.

A worker with another broker and orchestrator needs nothing of this package; the extra `[local]` installs its
dependencies.
"""
