"""Creates the files for a broker with one user per role: an nkey for each user, a CA, and a certificate for the broker.

`python -m ems_worker.local.keys DIRECTORY --url tls://nats.example:4222` creates the missing files; it needs the
program openssl. DIRECTORY/broker is for the broker, together with the configuration in deploy/nats. DIRECTORY/ROLE is
for the programs of that role. DIRECTORY/authority holds the private key of the CA and is for no program.
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
from ems_worker.settings import DEFAULT_NATS_PORT, Access, private

_DEFAULT_URL = f"tls://localhost:{DEFAULT_NATS_PORT}"
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
    """The files for a broker at `url`, in a private directory."""

    directory: Path
    url: str

    def seed(self, role: str) -> Path:
        """The file with the nkey seed of the user of this role."""
        return self.directory / role / "user.nk"

    def ca(self, role: str) -> Path:
        """The file with the certificate of the CA for programs of this role."""
        return self.directory / role / "ca.pem"

    def context(self, role: str) -> Path:
        """The file with the context of the `nats` command for programs of this role."""
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
        return {role.name: _public(self.seed(role.name).read_bytes()) for role in rights.ROLES}

    def configuration(self) -> str:
        """The part of a nats-server's configuration that requires these keys and grants each role its rights."""
        cert, key = (json.dumps(str(self.broker / name)) for name in ("server.pem", "server.key"))
        return f"tls {{ cert_file: {cert}, key_file: {key} }}\n{rights.authorization(self.public())}"


def make(directory: Path, url: str, hosts: Sequence[str] = ()) -> Keys:
    """Creates the missing files. The certificate of the broker is for the host of `url` and for `hosts`.

    Raises errors.SettingsError for an invalid URL, errors.FileUnwritable, and PlatformFailed if openssl is missing or
    fails.
    """
    host = _host(url)
    site = Keys(private.directory(directory.resolve()), url)
    for name in (*(role.name for role in rights.ROLES), site.broker.name, site.authority.name):
        private.directory(site.directory / name)
    _make_certificates(site, sorted({host, *hosts}))
    for role in rights.ROLES:
        if not site.seed(role.name).exists():
            _write(site.seed(role.name), nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))
        content = {
            "description": f"ems-worker: the {role.name}",
            "url": url,
            "nkey": str(site.seed(role.name)),
            "ca": str(site.ca(role.name)),
            "inbox_prefix": rights.inbox_prefix(role.name),
        }
        _write(site.context(role.name), json.dumps(content, indent=2).encode() + b"\n")
        _write(site.ca(role.name), (site.authority / "ca.pem").read_bytes())
    lines = "".join(f"{name.upper()}_NKEY: {public}\n" for name, public in site.public().items())
    _write(site.broker / "keys.conf", lines.encode())
    return site


def _make_certificates(site: Keys, hosts: Sequence[str]) -> None:
    authority, broker = site.authority, site.broker
    ca, cert = authority / "ca.pem", broker / "server.pem"
    if ca.exists() and cert.exists():
        return
    # The random number in its name distinguishes a new CA from an earlier one.
    text = _EXTENSIONS.format(name=f"ems-worker {secrets.token_hex(4)}", names=", ".join(map(_alternative, hosts)))
    config, request, unfinished = (authority / name for name in ("openssl.cnf", "server.csr", "server.pem"))
    _write(config, text.encode())
    for file in (authority / "ca.key", ca, broker / "server.key", request, unfinished):
        _write(file, b"")  # openssl keeps the permissions of an existing file
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
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607  our own arguments, the user's own PATH
    except OSError as failed:
        raise process.PlatformFailed(
            "creating certificates needs the program openssl, which is not on PATH"
        ) from failed
    if done.returncode:
        raise process.PlatformFailed(f"openssl can't create a certificate: {done.stderr.strip()[-300:]}")


def _write(path: Path, content: bytes) -> None:
    os.close(private.write(path, content))


def _public(seed: bytes) -> str:
    public: bytes = nkeys.from_seed(bytearray(seed.strip())).public_key
    return public.decode()


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
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m ems_worker.local.keys", description=__doc__)
    parser.add_argument("directory", type=Path, metavar="DIRECTORY", help="where the files are created")
    parser.add_argument("--url", default=_DEFAULT_URL, help="URL of the broker for clients; default: %(default)s")
    parser.add_argument(
        "--host", action="append", default=[], help="another name or address of the broker; can be repeated"
    )
    given = parser.parse_args()
    try:
        make(given.directory, given.url, given.host)
    except errors.EmsError as failed:
        sys.stderr.write(f"error: {failed}\n")
        return 2
    sys.stdout.write(f"{given.directory}: broker, and the users {', '.join(role.name for role in rights.ROLES)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
