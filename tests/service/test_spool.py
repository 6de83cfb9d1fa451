"""Lines that come in any order, in a file of their own."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.adapters.spool import Spool

PLACES = 12
# Batches of lines: for each the place, and how many characters it has.
BATCHES = st.lists(st.lists(st.tuples(st.integers(0, PLACES - 1), st.integers(0, 40)), max_size=8), max_size=12)


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


@given(BATCHES)
def test_the_last_line_of_each_place_is_in_the_file(batches: list[list[tuple[int, int]]]) -> None:
    """The lines are in the order of their places, and a file is complete once each place has one."""
    with tempfile.TemporaryDirectory() as directory:
        collected = Spool(Path(directory) / "lines", PLACES)
        last: dict[int, bytes] = {}
        for number, batch in enumerate([*batches, [(place, place) for place in range(PLACES)], *batches]):
            lines = [(place, b"%d %d %s\n" % (number, place, b"x" * length)) for place, length in batch]
            collected.add(lines)
            last.update(lines)
            assert collected.complete is (len(last) == PLACES)
        collected.assemble(Path(directory) / "file")
        assert (Path(directory) / "file").read_bytes() == b"".join(last[place] for place in range(PLACES))


def test_lines_that_were_cut_off_are_an_error(tmp_path: Path) -> None:
    """The file isn't written without them."""
    collected = Spool(tmp_path / "lines", 2)
    collected.add([(0, b"first\n"), (1, b"second\n")])
    os.truncate(tmp_path / "lines", 9)
    with pytest.raises(OSError, match="lines are missing"):
        collected.assemble(tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    """Lines have parameters and metrics, as the manifest does. Nothing but the file is left once they are deleted."""
    collected = Spool(tmp_path / "new" / "lines", 1)
    collected.add([(0, b"secret\n")])
    collected.assemble(tmp_path / "new" / "file")
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()} == {0o600}
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    collected.delete()
    collected.delete()
    assert os.listdir(tmp_path / "new") == ["file"]


def test_lines_of_an_earlier_process_are_not_kept(tmp_path: Path) -> None:
    """A spool begins empty."""
    (tmp_path / "lines").write_bytes(b"of another\n")
    collected = Spool(tmp_path / "lines", 1)
    collected.add([(0, b"mine\n")])
    collected.assemble(tmp_path / "file")
    assert lines_of(tmp_path / "file") == [b"mine"]


def test_a_deleted_spool_is_an_error_and_not_begun_anew(tmp_path: Path) -> None:
    """The lines that it had are missing, so neither more lines nor the file are written."""
    collected = Spool(tmp_path / "lines", 2)
    collected.add([(0, b"first\n")])
    (tmp_path / "lines").unlink()
    with pytest.raises(FileNotFoundError):
        collected.add([(1, b"second\n")])
    with pytest.raises(FileNotFoundError):
        collected.assemble(tmp_path / "file")
    assert os.listdir(tmp_path) == []
