"""Downloads stay in their directory, go on where they stopped, and replace nothing unasked."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ems_worker import errors
from ems_worker.adapters.orchestrator.output import File, Part
from ems_worker.cli import downloading, exits
from ems_worker.cli.downloading import Downloads

CONTENT = b"0123456789"
FILE = File("plots/a.png", len(CONTENT), 1_700_000_000_123_456_789, "", "")
RUN = "reef-p000000-r000-a1"


class Sender:
    """Sends CONTENT, up to a byte, from the offset that is asked for. `asked` has the offsets."""

    def __init__(self, until: int = len(CONTENT), more: bytes = b"") -> None:
        self.until = until
        self.more = more
        self.asked: list[int] = []

    async def artifact(self, simulation_id: str, name: str, *, offset: int = 0) -> AsyncIterator[Part]:
        self.asked.append(offset)
        yield Part(CONTENT[offset : self.until] + self.more, offset, len(CONTENT))


def downloads(sender: Sender, directory: Path, **options: Any) -> Downloads:
    """The downloads of a command."""
    outputs: Any = sender
    return Downloads(outputs, directory, **{"overwrite": False, "json": False, **options})


async def test_a_file_gets_its_place_and_its_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is DIR/RUN/PATH, and nothing partial is left."""
    await downloads(Sender(), tmp_path / "out").fetch(RUN, FILE)
    target = tmp_path / "out" / RUN / "plots" / "a.png"
    assert target.read_bytes() == CONTENT
    assert target.stat().st_mtime_ns == FILE.modified_ns
    assert os.listdir(target.parent) == ["a.png"]
    assert capsys.readouterr().out == f"{target}\n"


async def test_a_file_that_is_there_is_not_sent_again(tmp_path: Path) -> None:
    """The same size and time are the same file."""
    sender = Sender()
    await downloads(sender, tmp_path).fetch(RUN, FILE)
    again = downloads(sender, tmp_path)
    await again.fetch(RUN, FILE)
    assert sender.asked == [0]
    assert (again.found, again.left) == (True, 0)


async def test_an_interrupted_download_goes_on(tmp_path: Path) -> None:
    """The second command asks for the rest only."""
    sender = Sender(until=4)
    with pytest.raises(errors.OrchestratorUnavailable, match="repeat the command to go on"):
        await downloads(sender, tmp_path).fetch(RUN, FILE)
    sender.until = len(CONTENT)
    await downloads(sender, tmp_path).fetch(RUN, FILE)
    assert sender.asked == [0, 4]
    assert (tmp_path / RUN / "plots" / "a.png").read_bytes() == CONTENT


async def test_the_rest_of_another_state_of_the_file_is_not_added(tmp_path: Path) -> None:
    """A file that changed meanwhile begins anew."""
    sender = Sender(until=4)
    with pytest.raises(errors.OrchestratorUnavailable):
        await downloads(sender, tmp_path).fetch(RUN, FILE)
    sender.until = len(CONTENT)
    changed = File(FILE.path, FILE.size, FILE.modified_ns + 10**9, "", "")
    await downloads(sender, tmp_path).fetch(RUN, changed)
    assert sender.asked == [0, 0]


async def test_another_file_is_left_unless_it_may_be_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the command says what it did."""
    target = tmp_path / RUN / "plots" / "a.png"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"mine")
    left = downloads(Sender(), tmp_path)
    await left.fetch(RUN, FILE)
    assert (left.left, target.read_bytes()) == (1, b"mine")
    assert "is there and differs: it is left as it is" in capsys.readouterr().err
    await downloads(Sender(), tmp_path, overwrite=True).fetch(RUN, FILE)
    assert target.read_bytes() == CONTENT
    assert "(replaced)" in capsys.readouterr().out


async def test_a_link_is_never_followed(tmp_path: Path) -> None:
    """Neither in the place of a folder nor in that of the file, not even if files may be replaced."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / RUN).mkdir()
    (tmp_path / RUN / "plots").symlink_to(outside)
    with pytest.raises(exits.Misused, match="it is not a directory"):
        await downloads(Sender(), tmp_path, overwrite=True).fetch(RUN, FILE)
    (tmp_path / RUN / "b").symlink_to(outside / "b")
    linked = downloads(Sender(), tmp_path, overwrite=True)
    await linked.fetch(RUN, File("b", len(CONTENT), 0, "", ""))
    assert linked.left == 1
    assert list(outside.iterdir()) == []


async def test_no_more_is_written_than_the_file_has(tmp_path: Path) -> None:
    """An orchestrator that sends without end doesn't fill the disk."""
    with pytest.raises(errors.RequestRefused, match="more was sent than the file has"):
        await downloads(Sender(more=b"x"), tmp_path).fetch(RUN, FILE)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../up",
        "a/../../up",
        "a//b",
        "./a",
        "a/.",
        "a\nb",
        "a\x1b[2J",
        "a\0b",
        "..\\up",
        "x" * 256,
        "/".join("a" * 65),
        "\u202egnp.exe",
    ],
    ids=ascii,
)
def test_a_path_that_is_not_plain_has_no_place(path: str, tmp_path: Path) -> None:
    """It leads elsewhere, or would deceive a person."""
    assert downloading.place(tmp_path, RUN, path) is None


def test_a_run_has_a_plain_name_too(tmp_path: Path) -> None:
    """It comes from the worker, and is a directory here."""
    for run in ("../up", "/etc", "", "..", "a\x1b[2J"):
        assert downloading.place(tmp_path, run, "a") is None


async def test_files_without_a_usable_name_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The others are downloaded."""
    each = downloads(Sender(), tmp_path)
    await each.fetch(RUN, File("../up", len(CONTENT), 0, "", ""))
    await each.fetch(RUN, FILE)
    each.report()
    assert each.unsafe == 1
    assert "1 have names that can't be used" in capsys.readouterr().err


class Liar:
    """Sends these parts."""

    def __init__(self, *parts: Part) -> None:
        self._parts = parts

    async def artifact(self, simulation_id: str, name: str, *, offset: int = 0) -> AsyncIterator[Part]:
        for part in self._parts:
            yield part


async def test_an_answer_without_parts_is_an_early_end(tmp_path: Path) -> None:
    """Unless the file is empty."""
    sender: Any = Liar()
    with pytest.raises(errors.OrchestratorUnavailable, match="ended early"):
        await downloads(sender, tmp_path).fetch(RUN, FILE)
    await downloads(sender, tmp_path).fetch(RUN, File("empty", 0, 0, "", ""))
    assert (tmp_path / RUN / "empty").read_bytes() == b""


async def test_a_size_that_grows_with_each_part_is_no_limit(tmp_path: Path) -> None:
    """That of the first part counts."""
    sender: Any = Liar(Part(CONTENT, 0, 10), Part(CONTENT, 10, 20), Part(CONTENT, 20, 30))
    with pytest.raises(errors.RequestRefused, match="more was sent than the file has"):
        await downloads(sender, tmp_path).fetch(RUN, FILE)


async def test_a_time_that_no_file_can_have_is_left_out(tmp_path: Path) -> None:
    """The file is downloaded."""
    await downloads(Sender(), tmp_path).fetch(RUN, File("a", len(CONTENT), 2**63 * 10**9, "", ""))
    assert (tmp_path / RUN / "a").read_bytes() == CONTENT
