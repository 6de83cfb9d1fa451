"""python -m ems_worker.local.orchestrator: the local orchestrator as a process of its own."""

import argparse
import asyncio
import os
import sys
from pathlib import Path

import structlog

from ems_worker import errors, logs, settings
from ems_worker.local import process
from ems_worker.local.orchestrator import server, simulation
from ems_worker.terminal import streams

_BUILT_IN_MODEL = "reef-1"


def main() -> int:
    """0 after an orderly stop, 1 where it couldn't start, 2 for a wrong command line."""
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
    except errors.SettingsError as wrong:
        streams.say(f"error: {wrong}")
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
    parser.add_argument("--listen", required=True, metavar="ADDR", help="where it serves gRPC: unix:PATH or HOST:PORT")
    nats = parser.add_mutually_exclusive_group(required=True)
    nats.add_argument("--server", metavar="URL", help="the NATS server for the events")
    nats.add_argument("--context", metavar="NAME", help="a context of the nats command, or its file, in its place")
    parser.add_argument("--data-dir", required=True, type=Path, help="its database and the runs' directories")
    parser.add_argument(
        "--slots", type=int, default=os.cpu_count() or 1, help="simulations at once; default: the cores"
    )
    parser.add_argument(
        "--simulator",
        metavar="COMMAND",
        help="the simulator, with {config} {seed} {simulation_id} {output_dir} to fill in; default: our small fish",
    )
    parser.add_argument("--model-version", help="what it calls the simulator's version in events")
    parser.add_argument("--max-message-bytes", type=int, default=4 * 1024 * 1024, help="largest gRPC request; 4 MiB")
    parser.add_argument("--stop-grace-seconds", type=float, default=3.0, help="between TERM and KILL; 3")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="serve by TLS with this certificate (PEM)")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key (PEM)")
    parser.add_argument(
        "--tls-client-ca", type=Path, metavar="FILE", help="serve only clients with a certificate of this CA (PEM)"
    )
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="serve only calls with this bearer token")
    parser.add_argument("--insecure", action="store_true", help="let everybody who can connect start simulations")
    given = parser.parse_args()
    if (given.tls_cert is None) != (given.tls_key is None) or (given.tls_client_ca and given.tls_cert is None):
        parser.error("--tls-cert and --tls-key belong together, and --tls-client-ca needs them")
    if given.slots < 1:
        parser.error("--slots must be at least 1")
    try:
        simulator = simulation.Command.parse(given.simulator) if given.simulator else simulation.Command.default()
    except ValueError as wrong:
        parser.error(f"--simulator: {wrong}")
    options = server.Options(
        listen=given.listen,
        # Beside the address, what other NATS programs read: NATS_CREDS, NATS_CA, NATS_CONTEXT, ...
        nats=settings.access({"server": given.server, "context": given.context}, os.environ),
        data_dir=given.data_dir.resolve(),
        slots=given.slots,
        simulator=simulator,
        # Another simulator's version is not ours to guess: empty is "unknown".
        model_version=given.model_version or ("" if given.simulator else _BUILT_IN_MODEL),
        max_message_bytes=given.max_message_bytes,
        stop_grace_seconds=given.stop_grace_seconds,
        tls_cert=given.tls_cert,
        tls_key=given.tls_key,
        tls_client_ca=given.tls_client_ca,
        token=given.token_file,
    )
    if options.open and not given.insecure:
        parser.error(
            f"everybody who can connect to {given.listen} could start simulations as this user: listen on unix:PATH, "
            "give --token-file or --tls-client-ca, or allow it with --insecure"
        )
    return options


if __name__ == "__main__":
    sys.exit(main())
