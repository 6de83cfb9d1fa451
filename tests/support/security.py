"""Certificates, keys and credentials for a test, and the nats-server configurations that require them."""

import base64
import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import nkeys
import trustme

_OPERATOR, _ACCOUNT, _USER = (nkeys.PREFIX_BYTE_OPERATOR, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_USER)


def private(path: Path, content: bytes, mode: int = 0o600) -> Path:
    """A file with this content that, by default, only its owner can read."""
    path.write_bytes(content)
    path.chmod(mode)
    return path


@dataclasses.dataclass(frozen=True, slots=True)
class Certificates:
    """A CA with a server and a client certificate; `other_` marks an unknown CA with a client certificate."""

    ca: Path
    cert: Path
    key: Path
    client_cert: Path
    client_key: Path
    other_ca: Path
    other_cert: Path
    other_key: Path


def certificates(directory: Path) -> Certificates:
    """All of them as PEM files."""
    ours, others = trustme.CA(), trustme.CA()
    files: dict[str, Path] = {}
    for name, authority, identity in (
        ("", ours, ours.issue_cert("127.0.0.1", "localhost")),
        ("client_", ours, ours.issue_cert("worker@ems.test")),
        ("other_", others, others.issue_cert("worker@ems.test")),
    ):
        chain = b"".join(blob.bytes() for blob in identity.cert_chain_pems)
        files[f"{name}cert"] = private(directory / f"{name}cert.pem", chain)
        files[f"{name}key"] = private(directory / f"{name}key.pem", identity.private_key_pem.bytes())
        if name != "client_":
            files[f"{name}ca"] = private(directory / f"{name}ca.pem", authority.cert_pem.bytes(), 0o644)
    return Certificates(**files)


def server_tls(made: Certificates, *, verify: bool = False, first: bool = False) -> str:
    """The configuration of a nats-server with TLS; with `verify` clients need a certificate of the CA."""
    options = {"cert_file": str(made.cert), "key_file": str(made.key)}
    lines = [f"{name}: {json.dumps(value)}" for name, value in options.items()]
    if verify:
        lines += [f"ca_file: {json.dumps(str(made.ca))}", "verify: true"]
    if first:
        # After this time the server greets in plaintext nevertheless, which the probe of the test waits for.
        lines.append('handshake_first: "100ms"')
    return "tls {\n  " + "\n  ".join(lines) + "\n}\n"


class Key:
    """An nkey pair."""

    def __init__(self, kind: int) -> None:
        self.seed: bytes = nkeys.encode_seed(os.urandom(32), kind)
        self.public: str = nkeys.from_seed(bytearray(self.seed)).public_key.decode()

    def signed(self, name: str, subject: str, claims: dict[str, Any]) -> str:
        """A JWT about `subject`, as nsc makes it."""
        body = {
            "iat": 1_700_000_000,
            "iss": self.public,
            "name": name,
            "sub": subject,
            "nats": {**claims, "version": 2},
        }
        body["jti"] = hashlib.sha256(json.dumps(body).encode()).hexdigest()
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        text = ".".join(_encoded(json.dumps(part).encode()) for part in (head, body))
        return f"{text}.{_encoded(nkeys.from_seed(bytearray(self.seed)).sign(text.encode()))}"


def user_key() -> Key:
    """A user's nkey."""
    return Key(_USER)


def operator_mode(directory: Path) -> tuple[str, Path]:
    """The configuration of a nats-server with an operator and one account, and the creds file of the account's user."""
    operator, account, system, user = Key(_OPERATOR), Key(_ACCOUNT), Key(_ACCOUNT), Key(_USER)
    unlimited = dict.fromkeys(("subs", "conn", "leaf", "imports", "exports", "data", "payload"), -1)
    storage = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
    limits = {**unlimited, **storage, "wildcards": True}
    operator_jwt = operator.signed("operator", operator.public, {"type": "operator"})
    account_jwt = operator.signed("account", account.public, {"type": "account", "limits": limits})
    system_jwt = operator.signed("SYS", system.public, {"type": "account", "limits": unlimited})
    user_jwt = account.signed("user", user.public, {"type": "user", "subs": -1, "data": -1, "payload": -1})
    content = (
        f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    creds = private(directory / "user.creds", content.encode())
    accounts = f"{{ {account.public}: {account_jwt}, {system.public}: {system_jwt} }}"
    config = (
        f"operator: {operator_jwt}\nsystem_account: {system.public}\nresolver: MEMORY\nresolver_preload: {accounts}\n"
    )
    return config, creds


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
