"""`ems logs` prints each byte once, whatever becomes of the connection and of the run."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from ems_worker import errors
from ems_worker.adapters.orchestrator.output import Part, Stream
from ems_worker.cli import logs

AWAY = errors.OrchestratorUnavailable("away")
SHORTER = errors.BeyondEnd("beyond the end")


class Script:
    """An orchestrator whose calls have these ends: each sends some parts, then raises or ends. `asked`: the offsets."""

    def __init__(self, *calls: Sequence[bytes | errors.EmsError]) -> None:
        self._calls = list(calls)
        self.asked: list[int] = []

    async def stream(self, run: str, stream: Stream, *, offset: int = 0, follow: bool = False) -> AsyncIterator[Part]:
        self.asked.append(offset)
        at = max(0, offset)
        for each in self._calls.pop(0):
            if isinstance(each, errors.EmsError):
                raise each
            yield Part(each, at, at + len(each))
            at += len(each)


def reader(script: Script) -> Any:
    """A reader of its standard output."""
    outputs: Any = script
    return logs._Reader(outputs, "reef-p000000-r000-a1", Stream.STDOUT)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for."""
    monkeypatch.setattr(logs, "_RETRY_SECONDS", 0)


async def test_a_lost_connection_goes_on_where_it_was(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Nothing is printed twice, and the loss is said once."""
    script = Script([b"one\n", AWAY], [AWAY], [b"two\n"])
    await reader(script).print(follow=True)
    printed = capfdbinary.readouterr()
    assert (printed.out, script.asked) == (b"one\ntwo\n", [0, 4, 4])
    assert printed.err.count(b"reconnecting") == 1


async def test_a_run_that_starts_again_is_printed_from_its_beginning(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    """As an orderly restart of the orchestrator has it."""
    script = Script([b"one\ntwo\n", AWAY], [SHORTER], [b"one\n"])
    await reader(script).print(follow=True)
    printed = capfdbinary.readouterr()
    assert (printed.out, script.asked) == (b"one\ntwo\none\n", [0, 8, 0])
    assert b"started again" in printed.err


@pytest.mark.parametrize("follow", [False, True])
async def test_an_orchestrator_that_never_answered_is_an_error(follow: bool) -> None:
    """Nobody waits for an address that is wrong."""
    with pytest.raises(errors.OrchestratorUnavailable):
        await reader(Script([AWAY])).print(follow=follow)


@pytest.mark.parametrize(
    ("content", "lines", "offset"),
    [
        (b"a\nb\nc\n", 2, 2),
        (b"a\nb\nc", 2, 2),
        (b"a\nb\nc\n", 0, 6),
        (b"a\nb\nc\n", 9, 0),
        (b"", 3, 0),
        (b"\n\n", 1, 1),
    ],
)
async def test_the_last_lines_begin_at_their_offset(content: bytes, lines: int, offset: int) -> None:
    """A last line without an end is a line."""
    each = reader(Script([content]))
    await each.skip_to_tail(lines)
    assert each.offset == offset
