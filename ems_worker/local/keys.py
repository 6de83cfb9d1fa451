"""What a broker with one user a role needs: an nkey for each user, a CA, and the broker's certificate.

`python -m ems_worker.local.keys DIRECTORY --url tls://nats.example:4222` makes them once, and keeps what is there. Needs
the program `openssl`. deploy/nats says how the broker uses them.
"""

import argparse
import dataclasses
import ipaddress
import json
import os
import secrets
import subprocess
import sys
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

import nkeys

from ems_worker import errors
from ems_worker.core import rights
from ems_worker.local import process
from ems_worker.settings import Access, private

_DAYS = "3650"
_EXTENSIONS = """[req]
distinguished_name = name
prompt = no
[name]
CN = {name}
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Keys:
    """The files of a broker at `url`, in a directory that only their owner can enter."""

    directory: Path
    url: str

    @property
    def ca(self) -> Path:
        """The CA's certificate, which clients trust."""
        return self.directory / "ca.pem"

    def seed(self, role: str) -> Path:
        """The secret nkey of the user of this role."""
        return self.directory / f"{role}.nk"

    def context(self, role: str) -> Path:
        """How a program of this role connects, as a context of the `nats` command."""
        return self.directory / f"{role}.json"

    def access(self, role: str) -> Access:
        """How a program of this role connects."""
        prefix = rights.inbox_prefix(role)
        return Access((self.url,), nkey=self.seed(role), ca=self.ca, inbox_prefix=prefix)

    def public(self) -> dict[str, str]:
        """The public nkey of each role's user."""
        return {one.name: _public(self.seed(one.name).read_bytes()) for one in rights.ROLES}

    def configuration(self) -> str:
        """The part of a nats-server's configuration that asks for these keys, and gives each role its rights."""
        cert, key = (json.dumps(str(self.directory / name)) for name in ("server.pem", "server.key"))
        return f"tls {{ cert_file: {cert}, key_file: {key} }}\n{rights.authorization(self.public())}"


def make(directory: Path, url: str, hosts: Sequence[str] = ()) -> Keys:
    """Makes what is missing. `hosts`: names and addresses of the broker's certificate beside that of `url`.

    Raises errors.FileUnwritable, and PlatformFailed where there is no openssl or it fails.
    """
    made = Keys(private.directory(directory.resolve()), url)
    for one in rights.ROLES:
        if not made.seed(one.name).exists():
            _write(made.seed(one.name), nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))
        content = {
            "description": f"ems-worker: the {one.name}",
            "url": url,
            "nkey": str(made.seed(one.name)),
            "ca": str(made.ca),
            "inbox_prefix": rights.inbox_prefix(one.name),
        }
        _write(made.context(one.name), json.dumps(content, indent=2).encode() + b"\n")
    lines = "".join(f"{role.upper()}: {public}\n" for role, public in made.public().items())
    _write(made.directory / "keys.conf", lines.encode())
    _certificates(made.directory, sorted({_host(url), *hosts}))
    return made


def _certificates(directory: Path, hosts: Sequence[str]) -> None:
    ca, cert = directory / "ca.pem", directory / "server.pem"
    if ca.exists() and cert.exists():
        return
    # Numbered, so that a CA made anew isn't taken for the one before.
    text = _EXTENSIONS.format(name=f"ems-worker {secrets.token_hex(4)}", names=", ".join(map(_alternative, hosts)))
    config, request = directory / "openssl.cnf", directory / "server.csr"
    _write(config, text.encode())
    for key in ("ca.key", "server.key"):
        _write(directory / key, b"")  # what openssl writes to keeps its mode
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-config", str(config))
    authority = ("-x509", "-days", _DAYS, "-extensions", "ca", "-keyout", str(directory / "ca.key"), "-out", str(ca))
    _openssl("req", *new, *authority)
    _openssl("req", *new, "-keyout", str(directory / "server.key"), "-out", str(request))
    signer = ("-CA", str(ca), "-CAkey", str(directory / "ca.key"), "-CAcreateserial", "-days", _DAYS)
    extensions = ("-extfile", str(config), "-extensions", "server")
    unfinished = directory / "server.pem.new"
    _openssl("x509", "-req", "-in", str(request), *signer, *extensions, "-out", str(unfinished))
    unfinished.replace(cert)
    for file in (config, request):
        file.unlink()


def _openssl(*arguments: str) -> None:
    try:
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607  our own words, the user's own PATH
    except OSError as failed:
        raise process.PlatformFailed("certificates are made by the program openssl, which is not on PATH") from failed
    if done.returncode:
        raise process.PlatformFailed(f"openssl can't make a certificate: {done.stderr.strip()[-300:]}")


def _write(path: Path, content: bytes) -> None:
    os.close(private.write(path, content))


def _public(seed: bytes) -> str:
    found: bytes = nkeys.from_seed(bytearray(seed.strip())).public_key
    return found.decode()


def _host(url: str) -> str:
    host = urllib.parse.urlsplit(url).hostname if "://" in url else None
    if not host:
        raise errors.SettingsError(f"{url!r} should look like tls://nats.example:4222")
    return host


def _alternative(host: str) -> str:
    try:
        return f"IP:{ipaddress.ip_address(host)}"
    except ValueError:
        return f"DNS:{host}"


def main() -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m ems_worker.local.keys", description=__doc__)
    parser.add_argument("directory", type=Path, metavar="DIRECTORY", help="where they are made, or kept")
    parser.add_argument("--url", default="tls://localhost:4222", help="where clients reach the broker (%(default)s)")
    parser.add_argument(
        "--host", action="append", default=[], help="another name or address of the broker; may be given several times"
    )
    given = parser.parse_args()
    try:
        made = make(given.directory, given.url, given.host)
    except errors.EmsError as failed:
        sys.stderr.write(f"error: {failed}\n")
        return 2
    roles = ", ".join(one.name for one in rights.ROLES)
    sys.stdout.write(f"{made.directory}: keys.conf, server.pem and server.key for the broker; ca.pem for its clients;\n")
    sys.stdout.write(f"an nkey (.nk) and a context of the nats command (.json) for each of {roles}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
