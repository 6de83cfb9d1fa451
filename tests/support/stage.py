"""A whole system whose processes a test kills and whose links it cuts, and the evidence to check afterwards."""

import asyncio
import contextlib
import json
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Self

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client

from ems_worker.adapters.jetstream import consumers
from ems_worker.local import ports
from tests.support import evidence, invariants, onwards, proxy, servers, wait, whole

# How long a shutdown may take, whatever the worker is doing.
SHUTDOWN_SECONDS = 10.0


class Worker(whole.Worker):
    """A worker that can be made to crash at a named point."""

    def __init__(self, directory: Path, server: str, orchestrator: str, **settings: str) -> None:
        super().__init__(directory, server, orchestrator, **settings)
        assert self._env is not None
        # The seed is for the tests only: the worker refuses unknown settings.
        self._plain = {name: value for name, value in self._env.items() if name != "EMS_CHAOS_SEED"}
        self._env = dict(self._plain)

    def arm(self, crash_at: str | None) -> None:
        """Makes the worker crash at this point from its next start on; None: at none."""
        self._env = dict(self._plain) if crash_at is None else {**self._plain, "EMS_CRASH_AT": crash_at}

    @property
    def plain_env(self) -> Mapping[str, str]:
        """The environment in which it crashes at no point."""
        return self._plain

    async def died(self, timeout: float = 30) -> None:
        """Waits until the worker has died by SIGKILL."""
        code = await self.wait(timeout)
        assert code == -signal.SIGKILL, f"the worker should have died, exit code {code}: {self.last_words()}"


class Stage:
    """`async with Stage(directory) as stage`: a nats-server and an oracle run; the test starts the worker.

    If `proxied`, the worker reaches them through the proxies `to_broker` and `to_orchestrator`.
    """

    def __init__(self, directory: Path, *oracle_flags: str, proxied: bool = False, **settings: str) -> None:
        """`settings`: EMS_* variables of the worker."""
        self.directory = directory
        self.broker = servers.NatsServer(directory / "nats")
        self.acked: dict[int, Mapping[str, Any]] = {}
        self._flags = oracle_flags
        self._proxied = proxied
        self._settings = settings
        self._stack = contextlib.AsyncExitStack()
        self._before: evidence.Evidence | None = None

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            # The port of the server is chosen first, so that the oracle can start at the same time.
            self.broker.port = ports.free_port()
            self.oracle = whole.Oracle(self.directory, self.broker.url, *self._flags)
            self.oracle.start()
            stack.push_async_callback(self.oracle.stop, 5)
            await stack.enter_async_context(self.broker)
            await self.oracle.ready()
            server, orchestrator = self.broker.url, self.oracle.target
            if self._proxied:
                self.to_broker = await stack.enter_async_context(proxy.Proxy(lambda: self.broker.port))
                target = int(orchestrator.rpartition(":")[2])
                self.to_orchestrator = await stack.enter_async_context(proxy.Proxy(lambda: target))
                server = f"nats://{ports.LOOPBACK}:{self.to_broker.port}"
                orchestrator = f"{ports.LOOPBACK}:{self.to_orchestrator.port}"
            self.worker = Worker(self.directory, server, orchestrator, **self._settings)
            stack.push_async_callback(self.worker.kill)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    @property
    def manifest(self) -> Path:
        return self.worker.data_dir / "manifest.db"

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client of the broker that doesn't use the proxy."""
        async with whole.client(self.broker.url) as connected:
            yield connected

    async def publish(self, plan: Mapping[str, Any], timeout: float = 30) -> int:
        """Publishes a plan, with the same message id until it is acknowledged; returns its sequence."""
        headers = {"Nats-Msg-Id": uuid.uuid4().hex}

        async def stored() -> int:
            with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                async with self.client() as client:
                    data = json.dumps(plan).encode()
                    ack = await client.jetstream().publish("ems.experiment.submit", data, timeout=2, headers=headers)
                    return ack.seq
            return 0

        seq = await wait.until(stored, timeout=timeout, what="the plan to be stored")
        self.acked[seq] = plan
        return seq

    async def ask(self, verb: str, timeout: float = 5, **body: Any) -> dict[str, Any] | None:
        """Sends a change request; returns the reply, or None if there is none in time."""
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            async with self.client() as client:
                message = await client.request(f"ems.api.{verb}", json.dumps(body).encode(), timeout=timeout)
                reply: dict[str, Any] = json.loads(message.data)
                return reply
        return None

    async def ended(self, timeout: float = 30) -> None:
        """Waits until every acknowledged plan is decided, and every experiment has ended and is published."""

        def all_published() -> bool:
            assert self.worker.running, f"the worker ended with {self.worker.exit_code}: {self.worker.last_words()}"
            if not self.manifest.exists():
                return False
            query = """
                SELECT (SELECT count(*) FROM submissions WHERE published), count(*),
                  total(finished_ms IS NOT NULL AND published_seq = ended_seq
                    AND published_revision = revision AND published_revision >= state_revision)
                FROM experiments"""
            [(decided, experiments, published)] = whole.rows(self.manifest, query)
            return bool(decided >= len(self.acked) and experiments == published)

        await wait.until(all_published, timeout=timeout, what="all experiments to end")

    async def stop(self) -> None:
        """Shuts the worker down in order."""
        self.worker.signal(signal.SIGTERM)
        code = await self.worker.wait(SHUTDOWN_SECONDS)
        assert code == 0, f"the worker's exit code is {code} after SIGTERM: {self.worker.last_words()}"

    async def give_back(self) -> None:
        """Makes the broker redeliver at once what a dead worker fetched and didn't acknowledge.

        Otherwise it would do so after `ack_wait`, half a minute. Must not be called while a worker runs.
        """
        async with self.client() as client:
            jetstream = client.jetstream()
            for stream, name in (("EMS_PLANS", consumers.PLANS), ("SIM_EVENTS", consumers.EVENTS)):
                info = await jetstream.consumer_info(stream, name)
                if info.delivered is None or info.ack_floor is None:
                    continue
                for seq in range(info.ack_floor.stream_seq + 1, info.delivered.stream_seq + 1):
                    token = f"$JS.ACK.{stream}.{name}.1.{seq}.{info.delivered.consumer_seq}.0.0"
                    await client.publish(token, b"-NAK")
            await client.flush()

    async def give_back_if_possible(self) -> None:
        """The same, unless the broker is away or doesn't have the consumers yet."""
        with contextlib.suppress(nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError):
            await self.give_back()

    async def command(self, *arguments: str) -> int:
        """Runs `ems-worker` with the worker's settings; returns its exit code. Its output is appended to a log."""
        with (self.directory / "commands.log").open("ab") as log:
            command = [sys.executable, "-m", "ems_worker.cli.worker", *arguments]
            process = await asyncio.create_subprocess_exec(*command, env=self.worker.plain_env, stdout=log, stderr=log)
            return await process.wait()

    def local(self) -> evidence.Evidence:
        """The evidence on disk."""
        return evidence.local(self.manifest, self.oracle.starts, self.acked)

    def check_now(self, expected: invariants.Expected | None = None) -> None:
        """Checks the rules for every moment against the files, and that nothing went back since the last check."""
        if self.manifest.exists():
            now = self.local()
            invariants.check(now, expected, ended=False)
            if self._before is not None:
                onwards.check(self._before, now)
            self._before = now

    async def check(self, expected: invariants.Expected | None = None) -> evidence.Evidence:
        """Checks all rules after the end; returns the evidence."""
        async with self.client() as client:
            complete = await evidence.whole(client.jetstream(), self.local())
        invariants.check(complete, expected)
        fatal = [line for line in self.worker.lines() if line["event"] in ("worker.fatal", "ledger.not_recorded")]
        assert not fatal, fatal
        return complete


async def together(*work: Any) -> None:
    """Runs coroutines at the same time; the first error cancels the others."""
    async with asyncio.TaskGroup() as group:
        for coroutine in work:
            group.create_task(coroutine)
