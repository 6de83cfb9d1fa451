"""A whole system whose parts a test kills and cuts off, with what is needed to judge it afterwards."""

import asyncio
import contextlib
import json
import signal
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Self

import nats
import nats.errors
from nats.aio.client import Client

from ems_worker.adapters.jetstream import consumers
from ems_worker.local import ports
from tests.support import evidence, invariants, onwards, proxy, servers, wait, whole

# The worker's orderly end has to come within that time, whatever it is doing.
SHUTDOWN_SECONDS = 10.0


class Worker(whole.Worker):
    """A worker that may be told where to crash."""

    def __init__(self, directory: Path, server: str, orchestrator: str, **settings: str) -> None:
        super().__init__(directory, server, orchestrator, **settings)
        assert self._env is not None
        # The seed is the tests' own: the worker refuses settings that it doesn't know.
        self._plain = {name: value for name, value in self._env.items() if name != "EMS_CHAOS_SEED"}
        self._env = dict(self._plain)

    def arm(self, crash_at: str | None) -> None:
        """From its next start on it ends at this point; None: it doesn't."""
        self._env = dict(self._plain) if crash_at is None else {**self._plain, "EMS_CRASH_AT": crash_at}

    async def died(self, timeout: float = 30) -> None:
        """Waits for its death by SIGKILL."""
        code = await self.wait(timeout)
        assert code == -signal.SIGKILL, f"the worker should have died, exit code {code}: {self.last_words()}"


class Stage:
    """`async with Stage(directory) as stage`: nats-server and oracle are there; the worker is started by the test.

    With `proxied` the worker reaches each of them through a proxy of its own, `to_broker` and `to_orchestrator`.
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
            # Its port has to be known before it runs: the oracle is told, and starts meanwhile.
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
        """A plain client of the broker, past the proxy."""
        async with whole.client(self.broker.url) as one:
            yield one

    async def publish(self, plan: Mapping[str, Any], timeout: float = 30) -> int:
        """Publishes a plan until it is acknowledged, under one message id; its sequence."""
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

    async def ask(self, verb: str, timeout: float = 5, **body: str) -> dict[str, Any] | None:
        """A change over `ems.api`; None where no answer came."""
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            async with self.client() as client:
                message = await client.request(f"ems.api.{verb}", json.dumps(body).encode(), timeout=timeout)
                found: dict[str, Any] = json.loads(message.data)
                return found
        return None

    async def ended(self, timeout: float = 30) -> None:
        """Waits until every acknowledged plan is decided, and every experiment has ended and is told."""

        def all_told() -> bool:
            assert self.worker.running, f"the worker ended with {self.worker.exit_code}: {self.worker.last_words()}"
            if not self.manifest.exists():
                return False
            query = """
                SELECT (SELECT count(*) FROM submissions WHERE published), count(*),
                  total(finished_ms IS NOT NULL AND published_seq = ended_seq
                    AND published_revision = revision AND published_revision >= state_revision)
                FROM experiments"""
            [(decided, experiments, told)] = whole.rows(self.manifest, query)
            return bool(decided >= len(self.acked) and experiments == told)

        await wait.until(all_told, timeout=timeout, what="all experiments to end")

    async def stop(self) -> None:
        """The worker's orderly end."""
        self.worker.signal(signal.SIGTERM)
        code = await self.worker.wait(SHUTDOWN_SECONDS)
        assert code == 0, f"the worker's exit code is {code} after SIGTERM: {self.worker.last_words()}"

    async def give_back(self) -> None:
        """Has the broker deliver again at once what a dead worker fetched and didn't acknowledge.

        It would after `ack_wait`, half a minute. Must not be called while a worker is at work.
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

    def local(self) -> evidence.Evidence:
        """What is on disk now."""
        return evidence.local(self.manifest, self.oracle.starts, self.acked)

    def check_now(self, expected: invariants.Expected | None = None) -> None:
        """The rules that hold at every moment, as far as they are about files, and that nothing went back."""
        if self.manifest.exists():
            now = self.local()
            invariants.check(now, expected, ended=False)
            if self._before is not None:
                onwards.check(self._before, now)
            self._before = now

    async def check(self, expected: invariants.Expected | None = None) -> evidence.Evidence:
        """All rules, after the end; what was found."""
        async with self.client() as client:
            found = await evidence.whole(client.jetstream(), self.local())
        invariants.check(found, expected)
        fatal = [line for line in self.worker.lines() if line["event"] in ("worker.fatal", "ledger.not_recorded")]
        assert not fatal, fatal
        return found


async def together(*work: Any) -> None:
    """Runs coroutines at once; the first error ends all."""
    async with asyncio.TaskGroup() as group:
        for one in work:
            group.create_task(one)
