"""Start commands as protobuf, split into batches; responses and status codes as answers."""

from collections.abc import Iterator, Sequence

import grpc
from msgspec import Struct

from ems_worker.core import text, trace
from ems_worker.core.lifecycle import outcome
from ems_worker.core.lifecycle.outcome import Answer, Outcome
from ems_worker.core.wire import Start
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb

CONTENT_TYPE = "application/yaml"
MAX_COMMANDS = 256
DEFAULT_LIMIT_BYTES = 4 * 1024 * 1024
# The tag and length of a command in a batch.
_FRAME_BYTES = 8
_ACCEPTED = (pb.START_OUTCOME_ACCEPTED, pb.START_OUTCOME_UNSPECIFIED)
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


class Command(Struct, frozen=True, gc=False):
    """A start command as protobuf.

    `size` is in bytes, `traceparent` is sent as metadata, and `alone` keeps the command out of batches.
    """

    simulation_id: str
    message: pb.StartSimulationCommand
    size: int
    traceparent: str | None = None
    alone: bool = False


def encode(start: Start) -> Command:
    """The start as a protobuf command."""
    message = pb.StartSimulationCommand(
        simulation_id=start.simulation_id,
        config=start.config,
        config_content_type=CONTENT_TYPE,
        config_sha=start.config_sha,
        rng_seed=start.seed,
        experiment_id=start.experiment_id,
        labels=start.labels,
    )
    return Command(start.simulation_id, message, message.ByteSize(), start.traceparent, start.alone)


def batches(commands: Sequence[Command], limit: int) -> Iterator[list[Command]]:
    """Batches of consecutive commands, each as large as `limit` (bytes), MAX_COMMANDS and a common trace allow."""
    batch: list[Command] = []
    size = 0
    for command in commands:
        full = size + command.size + _FRAME_BYTES > limit or len(batch) == MAX_COMMANDS
        # Metadata belongs to the call, so each call carries commands of one trace.
        if batch and (full or command.traceparent != batch[0].traceparent):
            yield batch
            batch, size = [], 0
        batch.append(command)
        size += command.size + _FRAME_BYTES
    if batch:
        yield batch


def metadata(command: Command) -> tuple[tuple[str, str], ...]:
    """The metadata of a call that begins with this command."""
    return () if command.traceparent is None else ((trace.HEADER, command.traceparent),)


def fits(command: Command, limit: int) -> bool:
    """Whether a batch of only this command is within the message limit."""
    return command.size + _FRAME_BYTES <= limit


def answer(simulation_id: str, code: str, message: str) -> Answer:
    """What the status code with this name means for a command."""
    return Answer(simulation_id, outcome.outcome(code), code, text.clip(message) or "")


def oversize(command: Command, limit: int) -> Answer:
    """The refusal of a command that is too large, which sending it again can't help."""
    return Answer(
        command.simulation_id,
        Outcome.REFUSED,
        "RESOURCE_EXHAUSTED",
        f"the start command has {command.size:,} bytes and the orchestrator takes {limit:,}: make the configuration "
        "smaller, or raise the orchestrator's message limit",
    )


def unsent(command: Command) -> Answer:
    """The answer to a command that was not wanted any more when its turn came."""
    return Answer(command.simulation_id, Outcome.UNSENT, "", "no command was sent: the run is not wanted any more")


def read(simulation_id: str, response: pb.StartSimulationResponse) -> Answer:
    """The answer in a response. An outcome that isn't set counts as accepted, because the call's status was OK.

    An unknown outcome, or a rejection without a status code, leaves the answer UNKNOWN.
    """
    given = response.outcome
    if given == pb.START_OUTCOME_ALREADY_EXISTS:
        return answer(simulation_id, "ALREADY_EXISTS", response.message)
    if given in _ACCEPTED and not response.status_code:
        return answer(simulation_id, "OK", response.message)
    code = _NAMES.get(response.status_code, "UNKNOWN")
    return answer(simulation_id, code if code != "OK" else "UNKNOWN", response.message)


def read_batch(batch: Sequence[Command], reply: pb.StartSimulationsResponse) -> list[Answer]:
    """An answer for each command of the batch, in the same order."""
    responses = {response.simulation_id: response for response in reply.responses}
    return [
        answer(name, "UNKNOWN", "the orchestrator's reply to the batch doesn't mention this run")
        if (response := responses.get(name := command.simulation_id)) is None
        else read(name, response)
        for command in batch
    ]
