"""NATS JetStream, for the worker."""

from ems_worker.adapters.jetstream.broker import Broker
from ems_worker.adapters.jetstream.provision import provision

__all__ = ["Broker", "provision"]
