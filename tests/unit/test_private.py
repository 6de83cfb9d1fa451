"""Files and directories that are their owner's only, whatever the umask, and whoever made them first."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ems_worker import errors
from ems_worker.settings import private
from tests.support import another_user


@pytest.fixture(autouse=True)
def wide_open() -> Iterator[None]:
    """A umask that keeps nothing from anybody."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_what_is_made_is_its_owners_only(tmp_path: Path) -> None:
    """Directories with the parents that were missing, files, and databases with what SQLite puts beside them."""
    private.directory(tmp_path / "a" / "b")
    private.data_directory(tmp_path / "c" / "d", ())
    assert {mode(tmp_path / name) for name in ("a", "a/b", "c", "c/d")} == {0o700}
    os.close(private.file(tmp_path / "file"))
    os.close(private.write(tmp_path / "written", b"secret"))
    private.database(tmp_path / "database")
    assert {mode(tmp_path / name) for name in ("file", "written", "database")} == {0o600}
    assert (tmp_path / "written").read_bytes() == b"secret"


def test_what_was_wider_is_narrowed(tmp_path: Path) -> None:
    """It is ours: made by an earlier version, or under another umask."""
    (tmp_path / "directory").mkdir()
    private.directory(tmp_path / "directory")
    assert mode(tmp_path / "directory") == 0o700
    for name in ("file", "database", "database-wal", "database-shm"):
        (tmp_path / name).touch()
        assert mode(tmp_path / name) == 0o666
    os.close(private.file(tmp_path / "file"))
    private.database(tmp_path / "database")
    assert {mode(one) for one in tmp_path.iterdir() if one.is_file()} == {0o600}


def test_a_data_directory_that_holds_only_ours_is_narrowed(tmp_path: Path) -> None:
    """Empty, or with files of ours; a directory with somebody's other files stays as it is."""
    for name, content, expected in (
        ("empty", [], 0o700),
        ("ours", ["manifest.db", "manifest.db-wal"], 0o700),
        ("home", ["manifest.db", "thesis.txt"], 0o755),
    ):
        (tmp_path / name).mkdir(0o755)
        for one in content:
            (tmp_path / name / one).touch()
        private.data_directory(tmp_path / name, ("manifest.db*",))
        assert mode(tmp_path / name) == expected, name


def test_a_data_directory_that_others_can_write_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """They could replace our files; but not in one with the sticky bit, like /tmp."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "thesis.txt").touch()
    with pytest.raises(errors.FileUnwritable, match=r"others may write to .*0777.*chmod go-w"):
        private.data_directory(tmp_path / "shared", ())
    (tmp_path / "shared").chmod(0o1777)
    private.data_directory(tmp_path / "shared", ())
    assert mode(tmp_path / "shared") == 0o1777


def test_a_file_in_the_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    """With its name."""
    (tmp_path / "file").touch()
    for make in (private.directory, lambda path: private.data_directory(path, ())):
        with pytest.raises(errors.FileUnwritable, match="file can't be made: File exists"):
            make(tmp_path / "file")
    with pytest.raises(errors.FileUnwritable, match="can't be written: Not a directory"):
        private.write(tmp_path / "file" / "secret", b"")


def test_our_own_link_to_a_directory_is_followed(tmp_path: Path) -> None:
    """It says where the user wants it."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    private.directory(tmp_path / "link")
    assert mode(tmp_path / "disk") == 0o700


def test_what_another_user_made_is_not_taken(tmp_path: Path) -> None:
    """A directory, and a link to a directory of ours, as they could be put into /tmp."""
    another_user.needs_root()
    (tmp_path / "directory").mkdir(0o700)
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("directory", "link"):
        os.chown(tmp_path / name, another_user.NOBODY, another_user.NOBODY, follow_symlinks=False)
        with pytest.raises(errors.FileUnwritable, match="another may have made it"):
            private.directory(tmp_path / name)


def test_secrets_are_read_from_nobody_elses_file(tmp_path: Path) -> None:
    """Not where others may read it, where it is a link, or no file at all."""
    secret = tmp_path / "secret"
    os.close(private.write(secret, b"word"))
    descriptor, content = private.read(secret)
    os.close(descriptor)
    assert content == b"word"
    (tmp_path / "link").symlink_to(secret)
    with pytest.raises(errors.SettingsError, match="link can't be read: it is a link"):
        private.read(tmp_path / "link")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(errors.SettingsError, match="not this user's own file"):
        private.read(tmp_path / "pipe")
    secret.chmod(0o640)
    with pytest.raises(errors.SettingsError, match=r"may be read by others \(mode 0640\): chmod 600"):
        private.read(secret)
    with pytest.raises(FileNotFoundError):
        private.read(tmp_path / "absent")


def test_secrets_are_not_read_from_another_users_file(tmp_path: Path) -> None:
    """Though only its owner may read it."""
    another_user.needs_root()
    os.close(private.write(tmp_path / "secret", b"word"))
    os.chown(tmp_path / "secret", another_user.NOBODY, another_user.NOBODY)
    with pytest.raises(errors.SettingsError, match="not this user's own file"):
        private.read(tmp_path / "secret")
