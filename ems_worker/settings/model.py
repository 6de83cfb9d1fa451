"""The settings themselves: names, types, bounds, defaults and what they mean."""

import ipaddress
import re
import socket
import urllib.parse
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from annotated_types import Ge, Gt, Le, MinLen, Unit
from pydantic import AfterValidator, BeforeValidator, Field

from ems_worker.settings.ways import Access, Channel

DEFAULT_SERVER = "nats://127.0.0.1:4222"

_SCHEMES = ("nats", "tls", "ws", "wss")
_NAME_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_PREFIX_FORM = re.compile(r"(?:[^\s.*>]+\.)+")
# A submitter chooses the subject of its reply: it must never be one that somebody takes for an event or an answer.
_NOT_FOR_REPLIES = ("ems.", "sim.", "$")


def host_and_port(address: str) -> tuple[str, int]:
    """`host:port` or `[v6 address]:port` as its parts. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = str(ipaddress.IPv6Address(host[1:-1]))
    elif ":" in host:
        raise ValueError("an IPv6 address needs brackets, like [::1]:8080")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("should look like 127.0.0.1:8080")
    return host, int(port)


def _words(value: object) -> object:
    """A comma-separated text as its parts: lists come from the environment and flags that way."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _no_boolean(value: object) -> object:
    # pydantic would take `true` for the number 1.
    if isinstance(value, bool):
        raise ValueError("should be a number, not true or false")
    return value


def _empty_is_none(value: object) -> object:
    """The environment has no other way to say None."""
    return None if value == "" else value


def _not_empty(value: object) -> object:
    # Path("") would be the working directory, which nobody means by an empty variable.
    if value == "":
        raise ValueError("should not be empty")
    return value


def _some(servers: tuple[str, ...]) -> tuple[str, ...]:
    if not servers:
        raise ValueError("should name a server, like nats://host:4222")
    return servers


def _worker_name(name: str) -> str:
    if not _NAME_FORM.fullmatch(name):
        raise ValueError("should be 1 to 64 letters, digits, '.', '-' and '_', a letter or digit first")
    return name


def _server_url(url: str) -> str:
    parts = urllib.parse.urlsplit(url if "://" in url else f"nats://{url}")
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"the scheme should be one of {', '.join(_SCHEMES)}")
    try:
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        named = False
    if not named:
        raise ValueError("should look like nats://host:4222")
    return url


def _reply_prefix(prefix: str) -> str:
    if not _PREFIX_FORM.fullmatch(prefix):
        raise ValueError("should be subject tokens that end with a dot and have no wildcard, like _INBOX.")
    if prefix.startswith(_NOT_FOR_REPLIES):
        raise ValueError(f"should not start with {' or '.join(_NOT_FOR_REPLIES)}: replies could pass for events")
    return prefix


def _address(text: str) -> str:
    if text:
        host_and_port(text)
    return text


def _host_name() -> str:
    """This host's name, in the form of a worker's id: it stays the same over restarts."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:64].lstrip("_.-") or "worker"


_Words = BeforeValidator(_words)
_Optional = BeforeValidator(_empty_is_none)
_Number = BeforeValidator(_no_boolean)
_Seconds = Annotated[float, _Number, Unit("seconds")]
_Url = Annotated[str, AfterValidator(_server_url)]
_ReplyPrefix = Annotated[str, AfterValidator(_reply_prefix)]
_Directory = Annotated[Path, BeforeValidator(_not_empty)]
_MaybeDirectory = Annotated[Path | None, _Optional]
_MaybeFile = Annotated[Path | None, _Optional]
_Name = Annotated[str, AfterValidator(_worker_name)]


class Settings(pydantic.BaseModel):
    """What the worker runs with. Paths are relative to the working directory."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    server: Annotated[tuple[_Url, ...], _Words, AfterValidator(_some)] = Field(
        default=(DEFAULT_SERVER,),
        description="NATS servers, separated by commas; NATS_URL is read where this is not set.",
    )
    context: Annotated[str | None, _Optional] = Field(
        default=None,
        description="Context of the nats command with address and credentials; NATS_CONTEXT is read where not set.",
    )
    nats_user: Annotated[str | None, _Optional] = Field(default=None, description="User name at NATS.")
    nats_password: Annotated[pydantic.SecretStr | None, _Optional] = Field(
        default=None, description="Password of that user. Variable or file only: a flag is seen by everybody."
    )
    nats_token: Annotated[pydantic.SecretStr | None, _Optional] = Field(
        default=None, description="Token in place of a user. Variable or file only."
    )
    nats_creds: _MaybeFile = Field(default=None, description="Credentials file: a user's JWT and its seed.")
    nats_nkey: _MaybeFile = Field(default=None, description="File with the seed of a user's nkey.")
    nats_cert: _MaybeFile = Field(default=None, description="Our own certificate for NATS (PEM), with nats_key.")
    nats_key: _MaybeFile = Field(default=None, description="Its private key (PEM), readable by nobody else.")
    nats_ca: _MaybeFile = Field(
        default=None, description="CA certificates (PEM) that the NATS servers are checked with; empty: the system's."
    )
    nats_tls_first: bool = Field(
        default=False, description="Begin with TLS, for servers that say nothing before (handshake_first)."
    )
    nats_inbox_prefix: Annotated[str | None, _Optional] = Field(
        default=None, description="Prefix of our inboxes, where an account's permissions ask for one."
    )
    nats_plaintext: bool = Field(default=False, description="Allow NATS without TLS though it is not on this machine.")
    orchestrator: Annotated[str, MinLen(1)] = Field(
        default="127.0.0.1:50051", description="gRPC target of the orchestrator that starts the simulations."
    )
    orchestrator_tls: bool = Field(default=False, description="Reach the orchestrator by TLS; so do the next three.")
    orchestrator_ca: _MaybeFile = Field(
        default=None, description="CA certificates (PEM) that the orchestrator is checked with; empty: gRPC's own."
    )
    orchestrator_cert: _MaybeFile = Field(
        default=None, description="Our own certificate for the orchestrator (PEM), with orchestrator_key."
    )
    orchestrator_key: _MaybeFile = Field(default=None, description="Its private key (PEM), readable by nobody else.")
    orchestrator_token: _MaybeFile = Field(
        default=None, description="File with the bearer token that the orchestrator asks for, readable by nobody else."
    )
    orchestrator_plaintext: bool = Field(
        default=False, description="Allow the orchestrator without TLS though it is not on this machine."
    )
    data_dir: _Directory = Field(
        default=Path("ems-data"), description="Directory of the manifest (manifest.db), made where missing."
    )
    http: Annotated[str, AfterValidator(_address)] = Field(
        default="127.0.0.1:8080",
        description="Where /healthz, /readyz and /metrics are served, host:port; port 0: any free one; empty: off.",
    )
    base_config_root: _MaybeDirectory = Field(
        default=None, description="Directory of the base files that plans may name; empty: the worker reads none."
    )
    create_streams: bool = Field(default=True, description="Create missing streams at the start, else refuse to run.")
    rpc_window: Annotated[int, _Number, Ge(1), Le(4096), Unit("calls")] = Field(
        default=64,
        description="gRPC calls open at once, at most: overload of the orchestrator makes them fewer. Calls that take "
        "long are set aside and go on beside these: up to four times as many, 512 at most.",
    )
    run_window: Annotated[Annotated[int, Ge(1)] | None, _Optional, _Number, Unit("runs")] = Field(
        default=None,
        description="Runs submitted and not ended at once; empty: the orchestrator's slots if it tells them, else 256.",
    )
    rpc_deadline_seconds: Annotated[_Seconds, Gt(0), Le(3600)] = Field(
        default=10.0, description="Deadline of every gRPC call."
    )
    run_timeout_seconds: Annotated[Annotated[_Seconds, Gt(0)] | None, _Optional, Unit("seconds")] = Field(
        default=None,
        description="Time limit of a run whose plan sets none, from its start, else its submission; empty: none, but "
        "3600 with an orchestrator that can't be asked for runs (GetSimulationStatus).",
    )
    stop_confirm_seconds: Annotated[_Seconds, Gt(0)] = Field(
        default=30.0, description="How long a run told to stop may take to confirm it; after that it counts as lost."
    )
    max_jobs: Annotated[int, _Number, Ge(1), Unit("jobs")] = Field(
        default=1_000_000, description="A plan with more jobs is rejected."
    )
    max_plan_bytes: Annotated[int, _Number, Ge(1024), Unit("bytes")] = Field(
        default=16 * 1024 * 1024, description="A plan that is larger, decompressed, is rejected."
    )
    plans_per_minute: Annotated[Annotated[int, Ge(1)] | None, _Optional, _Number, Unit("plans")] = Field(
        default=600, description="Plans of one publisher within a minute; more are rejected (429); empty: any number."
    )
    plans_per_minute_total: Annotated[Annotated[int, Ge(1)] | None, _Optional, _Number, Unit("plans")] = Field(
        default=1200, description="The same for all publishers together, whatever names they use; empty: any number."
    )
    max_open_experiments: Annotated[Annotated[int, Ge(1)] | None, _Optional, _Number, Unit("experiments")] = Field(
        default=None,
        description="Experiments of one publisher that have not ended; plans beyond are rejected; empty: any number.",
    )
    max_open_jobs: Annotated[Annotated[int, Ge(1)] | None, _Optional, _Number, Unit("jobs")] = Field(
        default=None,
        description="Jobs of all these experiments together, ended ones too; plans beyond are rejected; empty: any "
        "number.",
    )
    max_priority: Annotated[Annotated[int, Ge(-100), Le(100)] | None, _Optional, _Number, Unit("priority")] = Field(
        default=None, description="Plans that ask for a higher priority are rejected; empty: any, up to 100."
    )
    reply_prefixes: Annotated[tuple[_ReplyPrefix, ...], _Words] = Field(
        default=("_INBOX.",),
        description="Inbox prefixes that replies may go to, separated by commas; empty: requests get no replies.",
    )
    status_interval_seconds: Annotated[_Seconds, Ge(0.1)] = Field(
        default=0.1, description="Least time between two published statuses of an experiment; the last always goes out."
    )
    parked_events: Annotated[int, _Number, Ge(0), Unit("events")] = Field(
        default=10_000, description="Events of unknown runs that are kept at most; the oldest go first."
    )
    parked_seconds: Annotated[_Seconds, Gt(0)] = Field(
        default=3600.0, description="How long events of unknown runs are kept."
    )
    manifest_export: bool = Field(
        default=True, description="Leave EXPERIMENT_ID.manifest.jsonl behind when an experiment ends."
    )
    export_dir: _MaybeDirectory = Field(
        default=None, description="Directory of these manifest files; empty: the data directory."
    )
    shutdown_seconds: Annotated[_Seconds, Gt(0)] = Field(
        default=10.0, description="How long an orderly shutdown may take; what it leaves, the next start recovers."
    )
    worker_id: _Name = Field(
        default_factory=_host_name, description="The worker's name in statuses and logs, the same over restarts."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is logged."
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="One JSON object a line, or lines for people."
    )

    @property
    def access(self) -> Access:
        """How to get into NATS."""
        return Access(
            servers=self.server,
            user=self.nats_user,
            password=None if self.nats_password is None else self.nats_password.get_secret_value(),
            token=None if self.nats_token is None else self.nats_token.get_secret_value(),
            creds=self.nats_creds,
            nkey=self.nats_nkey,
            cert=self.nats_cert,
            key=self.nats_key,
            ca=self.nats_ca,
            tls_first=self.nats_tls_first,
            inbox_prefix=self.nats_inbox_prefix,
            plaintext=self.nats_plaintext,
        )

    @property
    def channel(self) -> Channel:
        """How to reach the orchestrator."""
        return Channel(
            target=self.orchestrator,
            tls=self.orchestrator_tls,
            ca=self.orchestrator_ca,
            cert=self.orchestrator_cert,
            key=self.orchestrator_key,
            plaintext=self.orchestrator_plaintext,
            token=self.orchestrator_token,
        )

    @property
    def manifest(self) -> Path:
        """The manifest's database file."""
        return self.data_dir / "manifest.db"

    @property
    def exports(self) -> Path:
        """Where the manifest files of ended experiments go."""
        return self.export_dir or self.data_dir

    @property
    def http_address(self) -> tuple[str, int] | None:
        """Host and port of the HTTP endpoints; None: they are off."""
        return host_and_port(self.http) if self.http else None
