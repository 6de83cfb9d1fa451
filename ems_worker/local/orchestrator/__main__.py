"""The command line of the local orchestrator: python -m ems_worker.local.orchestrator."""

import argparse
import asyncio
import os
import sys
from pathlib import Path

import structlog

from ems_worker import errors, logs, settings
from ems_worker.local import process
from ems_worker.local.orchestrator import server
from ems_worker.local.orchestrator.command import Command
from ems_worker.settings import fields
from ems_worker.terminal import streams

_BUILT_IN_MODEL = "reef-1"


def main() -> int:
    """Runs the orchestrator. Returns 0 after an orderly stop, 1 if it couldn't start, 2 for wrong arguments."""
    streams.guard()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            logs.cleaned,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger("INFO"),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        asyncio.run(server.run(_options()))
    except errors.SettingsError as error:
        streams.say(f"error: {error}")
        return 2
    except process.PlatformFailed as failed:
        streams.say(f"error: {failed}")
        return 1
    return 0


def _options() -> server.Options:
    parser = argparse.ArgumentParser(
        prog="python -m ems_worker.local.orchestrator",
        description="Runs simulations as processes on this machine. docs/orchestrator.md describes it.",
    )
    parser.add_argument(
        "--listen", required=True, metavar="ADDR", help="address of the gRPC service: unix:PATH or HOST:PORT"
    )
    nats = parser.add_mutually_exclusive_group(required=True)
    nats.add_argument("--server", metavar="URL", help="NATS server for the events")
    nats.add_argument("--context", metavar="NAME", help="context of the nats command, or its file, instead of a server")
    parser.add_argument(
        "--data-dir", required=True, type=Path, help="directory of the database and of the directories of runs"
    )
    parser.add_argument(
        "--slots",
        type=int,
        default=os.cpu_count() or 1,
        help="maximum number of concurrent simulations; default: the number of cores, %(default)s",
    )
    parser.add_argument(
        "--simulator",
        metavar="COMMAND",
        help="command line of the simulator, with the placeholders {config} {seed} {output} {simulation_id} {args} and "
        "{NAME} for any value of the configuration; default: a small fish simulator",
    )
    parser.add_argument(
        "--config-format", choices=("yaml", "json"), default="yaml", help="format of {config}; default: %(default)s"
    )
    parser.add_argument(
        "--model-version", help="version of the simulator, for events; default: that of the built-in one"
    )
    parser.add_argument(
        "--max-message-bytes",
        type=int,
        default=4 * 1024 * 1024,
        help="maximum size of a gRPC request; default: %(default)s",
    )
    parser.add_argument(
        "--stop-grace-seconds", type=float, default=3.0, help="time between SIGTERM and SIGKILL; default: %(default)s"
    )
    parser.add_argument(
        "--retention",
        metavar="DURATION",
        help="delete the directories of runs that ended longer ago, such as 30d; default: keep what simulations wrote",
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="serve over TLS with this certificate (PEM)")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="private key of --tls-cert (PEM)")
    parser.add_argument(
        "--tls-client-ca", type=Path, metavar="FILE", help="require client certificates of this CA (PEM)"
    )
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="require the bearer token in this file")
    parser.add_argument(
        "--insecure", action="store_true", help="let everyone who can connect start simulations as this user"
    )
    given = parser.parse_args()
    if (given.tls_cert is None) != (given.tls_key is None) or (given.tls_client_ca and given.tls_cert is None):
        parser.error("--tls-cert and --tls-key belong together, and --tls-client-ca needs them")
    if given.slots < 1:
        parser.error("--slots must be at least 1")
    try:
        simulator = Command.default()
        if given.simulator:
            simulator = Command.parse(given.simulator, config_format=given.config_format)
    except ValueError as error:
        parser.error(f"--simulator: {error}")
    try:
        retention = None if given.retention is None else fields.seconds(given.retention)
    except ValueError as error:
        parser.error(f"--retention: {error}")
    options = server.Options(
        listen=given.listen,
        # The variables of other NATS programs apply too: NATS_CREDS, NATS_CA, NATS_CONTEXT, ...
        nats=settings.access({"server": given.server, "context": given.context}, os.environ),
        data_dir=given.data_dir.resolve(),
        slots=given.slots,
        simulator=simulator,
        # The version of another simulator is unknown, which is an empty text.
        model_version=given.model_version or ("" if given.simulator else _BUILT_IN_MODEL),
        max_message_bytes=given.max_message_bytes,
        stop_grace_seconds=given.stop_grace_seconds,
        tls_cert=given.tls_cert,
        tls_key=given.tls_key,
        tls_client_ca=given.tls_client_ca,
        token=given.token_file,
        retention_seconds=retention,
    )
    if options.open and not given.insecure:
        parser.error(
            f"everyone who can connect to {given.listen} could start simulations as this user: listen on unix:PATH, "
            "give --token-file or --tls-client-ca, or permit it with --insecure"
        )
    return options


if __name__ == "__main__":
    sys.exit(main())
