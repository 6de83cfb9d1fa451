"""What programs that import the client, and the help of the commands, wait for: no library that isn't needed then."""

import subprocess
import sys

import pytest

# The modules that take long, and that nothing but a connection, a worker or a table needs.
HEAVY = ("aiosqlite", "google.protobuf", "grpc", "msgspec", "nats", "pydantic", "rich", "structlog", "yaml")


def imported(program: str) -> list[str]:
    """Those of the heavy modules that a new interpreter has imported after this program."""
    watch = f"import sys; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", f"{program}\n{watch}"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


def test_the_client_is_imported_without_the_libraries_that_a_connection_needs() -> None:
    """They are imported when a client is created."""
    assert imported("import ems_worker.client") == []
    assert imported("from ems_worker import client; client.EmsClient()") == ["nats"]


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_the_help_of_the_commands_needs_no_heavy_library(arguments: list[str]) -> None:
    """Nor asyncio, which takes as long as any of them."""
    program = f"import sys; sys.argv[1:] = {arguments}\nfrom ems_worker.cli import ems\n"
    program += "try:\n    ems.main()\nexcept SystemExit:\n    print()"
    assert imported(program) == []
    assert imported(program.replace("print()", "assert 'asyncio' not in sys.modules; print()")) == []
