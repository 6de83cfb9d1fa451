"""NATS JetStream: `Broker` for the worker, `connect` for everybody else."""

from ems_worker.adapters.jetstream.broker import Broker
from ems_worker.adapters.jetstream.connection import Connection, NoResponders, connect

__all__ = ["Broker", "Connection", "NoResponders", "connect"]
