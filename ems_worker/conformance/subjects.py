"""The names on NATS that an orchestrator uses: the kit knows the contract, and nothing of the worker."""

from typing import Final

EVENTS_STREAM: Final = "SIM_EVENTS"
RUN_STARTED: Final = "sim.run_started"
RUN_COMPLETED: Final = "sim.run_completed"
RUN_FAILED: Final = "sim.run_failed"
RUN_METRICS: Final = "sim.run_metrics"
