"""What a broker with one user a role needs: an nkey for each user, a CA, and the broker's certificate.

`python -m ems_worker.local.keys DIRECTORY --url tls://nats.example:4222` makes what is missing, with
the program openssl. DIRECTORY/broker is for the broker, with the configuration in deploy/nats; DIRECTORY/ROLE for the
programs of that role; DIRECTORY/authority has the secret key of the CA, and is for nobody.
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
from ems_worker.core.access import rights
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

    def seed(self, role: str) -> Path:
        """The secret nkey of the user of this role."""
        return self.directory / role / "user.nk"

    def ca(self, role: str) -> Path:
        """The CA's certificate, which clients trust, for programs of this role."""
        return self.directory / role / "ca.pem"

    def context(self, role: str) -> Path:
        """How a program of this role connects, as a context of the `nats` command."""
        return self.directory / role / "context.json"

    def access(self, role: str) -> Access:
        """How a program of this role connects."""
        prefix = rights.inbox_prefix(role)
        return Access((self.url,), nkey=self.seed(role), ca=self.ca(role), inbox_prefix=prefix)

    @property
    def broker(self) -> Path:
        """The directory for the broker."""
        return self.directory / "broker"

    @property
    def authority(self) -> Path:
        """The directory of the CA."""
        return self.directory / "authority"

    def public(self) -> dict[str, str]:
        """The public nkey of each role's user."""
        return {one.name: _public(self.seed(one.name).read_bytes()) for one in rights.ROLES}

    def configuration(self) -> str:
        """The part of a nats-server's configuration that asks for these keys, and gives each role its rights."""
        cert, key = (json.dumps(str(self.broker / name)) for name in ("server.pem", "server.key"))
        return f"tls {{ cert_file: {cert}, key_file: {key} }}\n{rights.authorization(self.public())}"


def make(directory: Path, url: str, hosts: Sequence[str] = ()) -> Keys:
    """Makes what is missing. `hosts`: names and addresses of the broker's certificate beside that of `url`.

    Raises errors.SettingsError for what is no URL, errors.FileUnwritable, and PlatformFailed where there is no openssl
    or it fails.
    """
    host = _host(url)
    made = Keys(private.directory(directory.resolve()), url)
    for name in (*(one.name for one in rights.ROLES), made.broker.name, made.authority.name):
        private.directory(made.directory / name)
    _certificates(made, sorted({host, *hosts}))
    for one in rights.ROLES:
        if not made.seed(one.name).exists():
            _write(made.seed(one.name), nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))
        content = {
            "description": f"ems-worker: the {one.name}",
            "url": url,
            "nkey": str(made.seed(one.name)),
            "ca": str(made.ca(one.name)),
            "inbox_prefix": rights.inbox_prefix(one.name),
        }
        _write(made.context(one.name), json.dumps(content, indent=2).encode() + b"\n")
        _write(made.ca(one.name), (made.authority / "ca.pem").read_bytes())
    lines = "".join(f"{role.upper()}_NKEY: {public}\n" for role, public in made.public().items())
    _write(made.broker / "keys.conf", lines.encode())
    return made


def _certificates(made: Keys, hosts: Sequence[str]) -> None:
    authority, broker = made.authority, made.broker
    ca, cert = authority / "ca.pem", broker / "server.pem"
    if ca.exists() and cert.exists():
        return
    # Numbered, so that a CA made anew isn't taken for the one before.
    text = _EXTENSIONS.format(name=f"ems-worker {secrets.token_hex(4)}", names=", ".join(map(_alternative, hosts)))
    config, request, unfinished = (authority / name for name in ("openssl.cnf", "server.csr", "server.pem"))
    _write(config, text.encode())
    for file in (authority / "ca.key", ca, broker / "server.key", request, unfinished):
        _write(file, b"")  # what openssl writes to keeps its mode
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-config", str(config))
    itself = ("-x509", "-days", _DAYS, "-extensions", "ca", "-keyout", str(authority / "ca.key"), "-out", str(ca))
    _openssl("req", *new, *itself)
    _openssl("req", *new, "-keyout", str(broker / "server.key"), "-out", str(request))
    signer = ("-CA", str(ca), "-CAkey", str(authority / "ca.key"), "-set_serial", str(secrets.randbits(120)))
    extensions = ("-extfile", str(config), "-extensions", "server")
    _openssl("x509", "-req", "-in", str(request), *signer, *extensions, "-days", _DAYS, "-out", str(unfinished))
    _write(cert, unfinished.read_bytes())
    for file in (config, request, unfinished):
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
        make(given.directory, given.url, given.host)
    except errors.EmsError as failed:
        sys.stderr.write(f"error: {failed}\n")
        return 2
    sys.stdout.write(f"{given.directory}: broker, and the users {', '.join(one.name for one in rights.ROLES)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
