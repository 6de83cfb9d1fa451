"""Declares every setting: name, type, range, default and description."""

from pathlib import Path
from typing import Annotated, Literal

import pydantic
from annotated_types import Ge, Gt, Le, MinLen, Unit
from pydantic import Field

from ems_worker.settings import fields
from ems_worker.settings.defaults import DEFAULT_HTTP_PORT, DEFAULT_SERVER
from ems_worker.settings.ways import Access, Channel


class Settings(pydantic.BaseModel):
    """The settings of a worker. Paths are relative to the working directory."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    server: fields.Servers = Field(
        default=(DEFAULT_SERVER,),
        description="NATS servers, separated by commas. NATS_URL is read if this is not set.",
    )
    context: Annotated[str | None, fields.Optional] = Field(
        default=None,
        description="Context of the nats command with address and credentials. NATS_CONTEXT is read if this is not "
        "set.",
    )
    nats_user: Annotated[str | None, fields.Optional] = Field(default=None, description="User name for NATS.")
    nats_password: Annotated[pydantic.SecretStr | None, fields.Optional] = Field(
        default=None, description="Password of that user. Variable or file only: every user can see flags."
    )
    nats_token: Annotated[pydantic.SecretStr | None, fields.Optional] = Field(
        default=None, description="Token, instead of a user. Variable or file only."
    )
    nats_creds: fields.OptionalFile = Field(
        default=None, description="Credentials file with the JWT and seed of a user."
    )
    nats_nkey: fields.OptionalFile = Field(default=None, description="File with the nkey seed of a user.")
    nats_cert: fields.OptionalFile = Field(
        default=None, description="Client certificate for NATS (PEM). Needs nats_key."
    )
    nats_key: fields.OptionalFile = Field(
        default=None, description="Private key of nats_cert (PEM), readable only by its owner."
    )
    nats_ca: fields.OptionalFile = Field(
        default=None, description="CA certificates (PEM) that verify the NATS servers. Empty: those of the system."
    )
    nats_tls_first: bool = Field(
        default=False, description="Start with the TLS handshake, for servers configured with handshake_first."
    )
    nats_inbox_prefix: Annotated[str | None, fields.Optional] = Field(
        default=None, description="Prefix of our inboxes, where the permissions of the user require one."
    )
    nats_plaintext: bool = Field(default=False, description="Permit NATS servers on other machines without TLS.")
    orchestrator: Annotated[str, MinLen(1)] = Field(
        default="127.0.0.1:50051", description="gRPC target of the orchestrator that starts the simulations."
    )
    orchestrator_tls: bool = Field(default=False, description="Use TLS. Implied by each of the next three options.")
    orchestrator_ca: fields.OptionalFile = Field(
        default=None, description="CA certificates (PEM) that verify the orchestrator. Empty: gRPC's own."
    )
    orchestrator_cert: fields.OptionalFile = Field(
        default=None, description="Client certificate for the orchestrator (PEM). Needs orchestrator_key."
    )
    orchestrator_key: fields.OptionalFile = Field(
        default=None, description="Private key of orchestrator_cert (PEM), readable only by its owner."
    )
    orchestrator_token: fields.OptionalFile = Field(
        default=None, description="File with the bearer token for the orchestrator, readable only by its owner."
    )
    orchestrator_plaintext: bool = Field(
        default=False, description="Permit an orchestrator on another machine without TLS."
    )
    data_dir: fields.Directory = Field(
        default=Path("ems-data"), description="Directory of the manifest (manifest.db). Created if missing."
    )
    http: fields.ListenAddress = Field(
        default=f"127.0.0.1:{DEFAULT_HTTP_PORT}",
        description="Address, as host:port, that serves /healthz, /readyz and /metrics. Port 0: any free port. Empty: "
        "off.",
    )
    base_config_root: fields.OptionalDirectory = Field(
        default=None, description="Directory of the base files that plans may name. Empty: plans may name none."
    )
    create_streams: bool = Field(
        default=True, description="Create missing streams at startup. If false, a missing stream is an error."
    )
    hold: bool = Field(
        default=False,
        description="Start no runs until `ems resume --all`, for after an incident. Plans are accepted, and all else "
        "works as usual.",
    )
    rpc_window: Annotated[int, fields.Number, Ge(1), Le(4096), Unit("calls")] = Field(
        default=64,
        description="Maximum number of concurrent gRPC calls; lowered while the orchestrator is overloaded. Slow calls "
        "are counted separately, up to four times this number and at most 512.",
    )
    run_window: Annotated[Annotated[int, Ge(1)] | None, fields.Optional, fields.Number, Unit("runs")] = Field(
        default=None,
        description="Maximum number of runs submitted and not ended. Empty: the orchestrator's slots if it reports "
        "them, otherwise 256.",
    )
    rpc_deadline_seconds: Annotated[fields.Seconds, Gt(0), Le(3600)] = Field(
        default=10.0, description="Deadline of every gRPC call."
    )
    run_timeout_seconds: Annotated[Annotated[fields.Seconds, Gt(0)] | None, fields.Optional, Unit("seconds")] = Field(
        default=None,
        description="Time limit of runs whose plan sets none, counted from the start of the run, or from its "
        "submission until the start is known. Empty: no limit, but 3600 if the orchestrator lacks GetSimulationStatus.",
    )
    stop_confirm_seconds: Annotated[fields.Seconds, Gt(0)] = Field(
        default=30.0, description="How long to wait for confirmation that a run has stopped. After that it is lost."
    )
    max_jobs: Annotated[int, fields.Number, Ge(1), Unit("jobs")] = Field(
        default=1_000_000, description="Maximum number of jobs in a plan. Larger plans are rejected."
    )
    max_plan_bytes: Annotated[int, fields.Number, Ge(1024), Unit("bytes")] = Field(
        default=16 * 1024 * 1024, description="Maximum decompressed size of a plan. Larger plans are rejected."
    )
    plans_per_minute: Annotated[Annotated[int, Ge(1)] | None, fields.Optional, fields.Number, Unit("plans")] = Field(
        default=600,
        description="Maximum number of plans from one publisher within a minute. More are rejected (429). Empty: no "
        "limit.",
    )
    plans_per_minute_total: Annotated[Annotated[int, Ge(1)] | None, fields.Optional, fields.Number, Unit("plans")] = (
        Field(default=1200, description="The same limit for all publishers together. Empty: no limit.")
    )
    max_open_experiments: Annotated[
        Annotated[int, Ge(1)] | None, fields.Optional, fields.Number, Unit("experiments")
    ] = Field(
        default=None,
        description="Maximum number of experiments of one publisher that have not ended. Further plans are rejected. "
        "Empty: no limit.",
    )
    max_open_jobs: Annotated[Annotated[int, Ge(1)] | None, fields.Optional, fields.Number, Unit("jobs")] = Field(
        default=None,
        description="Maximum number of jobs in those experiments, including jobs that have ended. Further plans are "
        "rejected. Empty: no limit.",
    )
    max_priority: Annotated[
        Annotated[int, Ge(-100), Le(100)] | None, fields.Optional, fields.Number, Unit("priority")
    ] = Field(default=None, description="Maximum priority of a plan. Plans with a higher one are rejected. Empty: 100.")
    reply_prefixes: Annotated[tuple[fields.ReplyPrefix, ...], fields.CommaSeparated] = Field(
        default=("_INBOX.",),
        description="Inbox prefixes that replies may be sent to, separated by commas. Empty: no request gets a reply.",
    )
    status_interval_seconds: Annotated[fields.Seconds, Ge(0.1)] = Field(
        default=0.1,
        description="Minimum interval between two published statuses of an experiment. The last one is always "
        "published.",
    )
    parked_events: Annotated[int, fields.Number, Ge(0), Unit("events")] = Field(
        default=10_000, description="Maximum number of events kept for unknown runs. The oldest are dropped first."
    )
    parked_seconds: Annotated[fields.Seconds, Gt(0)] = Field(
        default=3600.0, description="How long events of unknown runs are kept."
    )
    manifest_export: bool = Field(
        default=True, description="Write EXPERIMENT_ID.manifest.jsonl when an experiment ends."
    )
    export_dir: fields.OptionalDirectory = Field(
        default=None, description="Directory of those manifest files. Empty: the data directory."
    )
    retention: Annotated[fields.Duration | None, fields.Optional] = Field(
        default=None,
        description="How long experiments are kept after their end, such as 30d. Older ones are written to manifest "
        "files and removed for ever. Empty: for ever.",
    )
    backup_interval: Annotated[fields.Duration | None, fields.Optional] = Field(
        default=None,
        description="How often the manifest is copied to `backups` in the data directory, such as 1d. The last seven "
        "copies are kept. Empty: never.",
    )
    shutdown_seconds: Annotated[fields.Seconds, Gt(0)] = Field(
        default=10.0, description="Time limit of an orderly shutdown. The next start recovers what is unfinished."
    )
    worker_id: fields.WorkerName = Field(
        default_factory=fields.host_name,
        description="Name of the worker in statuses and logs. Keep it across restarts.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Minimum level of the events that are logged."
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="One JSON object per line, or lines for people."
    )

    @property
    def access(self) -> Access:
        """How to connect to NATS."""
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
        """How to connect to the orchestrator."""
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
        """The database file of the manifest."""
        return self.data_dir / "manifest.db"

    @property
    def exports(self) -> Path:
        """The directory for the manifest files of ended experiments."""
        return self.export_dir or self.data_dir

    @property
    def retention_seconds(self) -> float | None:
        """How long experiments are kept after their end; None: for ever."""
        return None if self.retention is None else fields.seconds(self.retention)

    @property
    def backup_seconds(self) -> float | None:
        """How often the manifest is copied; None: never."""
        return None if self.backup_interval is None else fields.seconds(self.backup_interval)

    @property
    def http_address(self) -> tuple[str, int] | None:
        """Host and port of the HTTP endpoints; None if they are off."""
        return fields.host_and_port(self.http) if self.http else None
