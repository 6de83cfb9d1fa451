"""Private files and directories are readable only by their owner, under any umask and whoever created them first."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ems_worker import errors
from ems_worker.settings import private
from tests.support import another_user


@pytest.fixture(autouse=True)
def permissive_umask() -> Iterator[None]:
    """A umask that removes no permissions."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    """The permissions of a file, not following links."""
    return stat.S_IMODE(path.lstat().st_mode)


def test_new_files_and_directories_are_readable_only_by_their_owner(tmp_path: Path) -> None:
    """Directories, their missing parents, files and databases are all created without permissions for others."""
    private.directory(tmp_path / "a" / "b")
    private.data_directory(tmp_path / "c" / "d", ())
    assert {mode(tmp_path / name) for name in ("a", "a/b", "c", "c/d")} == {0o700}
    os.close(private.file(tmp_path / "file"))
    os.close(private.write(tmp_path / "written", b"secret"))
    private.database(tmp_path / "database")
    assert {mode(tmp_path / name) for name in ("file", "written", "database")} == {0o600}
    assert (tmp_path / "written").read_bytes() == b"secret"


def test_the_permissions_of_existing_files_and_directories_are_tightened(tmp_path: Path) -> None:
    """Files and directories of this user lose the permissions for others, and so do the files beside a database."""
    (tmp_path / "directory").mkdir()
    private.directory(tmp_path / "directory")
    assert mode(tmp_path / "directory") == 0o700
    for name in ("file", "database", "database-wal", "database-shm"):
        (tmp_path / name).touch()
        assert mode(tmp_path / name) == 0o666
    os.close(private.file(tmp_path / "file"))
    private.database(tmp_path / "database")
    assert {mode(path) for path in tmp_path.iterdir() if path.is_file()} == {0o600}


def test_a_data_directory_with_only_our_files_has_its_permissions_tightened(tmp_path: Path) -> None:
    """An empty directory and one with our files only are closed to others; one with other files is left unchanged."""
    for name, content, expected in (
        ("empty", [], 0o700),
        ("ours", ["manifest.db", "manifest.db-wal"], 0o700),
        ("home", ["manifest.db", "thesis.txt"], 0o755),
    ):
        (tmp_path / name).mkdir(0o755)
        for file in content:
            (tmp_path / name / file).touch()
        private.data_directory(tmp_path / name, ("manifest.db*",))
        assert mode(tmp_path / name) == expected, name


def test_a_data_directory_that_others_can_write_to_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """Others could replace files in such a directory, unless it has the sticky bit like /tmp."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "thesis.txt").touch()
    with pytest.raises(errors.FileUnwritable, match=r"others may write to .*0777.*chmod go-w"):
        private.data_directory(tmp_path / "shared", ())
    (tmp_path / "shared").chmod(0o1777)
    private.data_directory(tmp_path / "shared", ())
    assert mode(tmp_path / "shared") == 0o1777


def test_a_file_where_a_directory_is_needed_is_refused_by_name(tmp_path: Path) -> None:
    """Creating a directory, or a file below it, fails with the path and the reason."""
    (tmp_path / "file").touch()
    for make in (private.directory, lambda path: private.data_directory(path, ())):
        with pytest.raises(errors.FileUnwritable, match="file can't be created: File exists"):
            make(tmp_path / "file")
    with pytest.raises(errors.FileUnwritable, match="can't be written: Not a directory"):
        private.write(tmp_path / "file" / "secret", b"")


def test_a_link_of_this_user_to_a_directory_is_followed(tmp_path: Path) -> None:
    """A user who replaces a directory by a link chooses where the data is kept."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    private.directory(tmp_path / "link")
    assert mode(tmp_path / "disk") == 0o700


def test_a_directory_or_link_of_another_user_is_refused(tmp_path: Path) -> None:
    """Another user could create either of them in /tmp before we do."""
    another_user.require_root()
    (tmp_path / "directory").mkdir(0o700)
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("directory", "link"):
        os.chown(tmp_path / name, another_user.NOBODY, another_user.NOBODY, follow_symlinks=False)
        with pytest.raises(errors.FileUnwritable, match="another user may have created it"):
            private.directory(tmp_path / name)


def test_secrets_are_read_only_from_private_regular_files(tmp_path: Path) -> None:
    """A link, a pipe, and a file that others may read are refused; a missing file is FileNotFoundError."""
    secret = tmp_path / "secret"
    os.close(private.write(secret, b"word"))
    descriptor, content = private.read(secret)
    os.close(descriptor)
    assert content == b"word"
    (tmp_path / "link").symlink_to(secret)
    with pytest.raises(errors.SettingsError, match="link can't be read: it is a link"):
        private.read(tmp_path / "link")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(errors.SettingsError, match="not a file of this user"):
        private.read(tmp_path / "pipe")
    secret.chmod(0o640)
    with pytest.raises(errors.SettingsError, match=r"may be read by others \(mode 0640\): chmod 600"):
        private.read(secret)
    with pytest.raises(FileNotFoundError):
        private.read(tmp_path / "absent")


def test_secrets_are_not_read_from_a_file_of_another_user(tmp_path: Path) -> None:
    """Even with private permissions, a file of another user is refused."""
    another_user.require_root()
    os.close(private.write(tmp_path / "secret", b"word"))
    os.chown(tmp_path / "secret", another_user.NOBODY, another_user.NOBODY)
    with pytest.raises(errors.SettingsError, match="not a file of this user"):
        private.read(tmp_path / "secret")
