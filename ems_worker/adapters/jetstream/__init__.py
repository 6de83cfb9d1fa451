"""NATS JetStream, for the worker."""

from ems_worker.adapters.jetstream.broker import Broker

__all__ = ["Broker"]
