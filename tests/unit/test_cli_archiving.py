"""An archive is written beside its final name, and never through a link that somebody prepared."""

import os
import secrets
import tarfile
from pathlib import Path

import pytest

from ems_worker.cli import archiving, exits


def test_a_link_in_the_place_of_the_partial_file_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither under a name that can be guessed nor under one that was."""
    target, victim = tmp_path / "a.tar.gz", tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / f".a.tar.gz.{os.getpid()}.partial").symlink_to(victim)
    with archiving._created(target):
        pass
    assert (victim.read_text(), target.stat().st_mode & 0o777) == ("mine", 0o600)
    with tarfile.open(target) as archive:
        assert archive.getnames() == []
    target.unlink()
    monkeypatch.setattr(secrets, "token_hex", lambda _: "guessed")
    (tmp_path / ".a.tar.gz.guessed.partial").symlink_to(victim)
    with pytest.raises(exits.Misused, match="can't be written"), archiving._created(target):
        pass
    assert victim.read_text() == "mine"
    assert (tmp_path / ".a.tar.gz.guessed.partial").is_symlink()
