"""The Orchestration Layer over gRPC."""

from ems_worker.adapters.orchestrator.client import Orchestrator

__all__ = ["Orchestrator"]
