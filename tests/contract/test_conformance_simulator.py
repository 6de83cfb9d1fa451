"""The conformance kit's checks of simulators: our own passes, and each way of breaking the protocol is detected."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from ems_worker.conformance import check, simulator
from tests.support import servers

RIGHT = """
import json, os, sys, time
config = open(os.environ["SIMULATION_CONFIG"]).read()
if config.startswith("simulation_layer: {["):
    sys.exit("no configuration")
seed = int(os.environ["SIMULATION_SEED"])
open(os.path.join(os.environ["SIMULATION_OUTPUT_DIR"], "log"), "w").close()
if config.startswith("long"):
    time.sleep(60)
print(json.dumps({"metrics": {"population": seed % 7}, "artifacts": {"log": "log"}}))
"""
# For each fault: the text in the correct simulator, its replacement, and a part of the check's message.
FINDS = {
    "completes": ("seed = int", "sys.exit('no fish'); seed = int", "exit code 1; no fish"),
    "completes-garbled": ('"population": seed % 7', '"population": "many"', "the metric 'population' is 'many'"),
    "completes-leaves-process": (
        "seed = int",
        "import subprocess; subprocess.Popen(['sleep', '60']); seed = int",
        "left processes in its process group",
    ),
    "metrics": ('"population": seed % 7', "", "no metrics"),
    "metrics-empty": ("seed % 7", "float('nan')", "none of its metrics has a value"),
    "artifacts": ('"log"), "w").close()', '"other"), "w").close()', "missing: log"),
    "deterministic": ("seed % 7", "time.time_ns()", "then {'population'"),
    "unusable-configuration": ('if config.startswith("simulation_layer: {["):', "if False:", "does it read the file?"),
    "unusable-configuration-silent": ('sys.exit("no configuration")', "sys.exit(1)", "nothing on stderr"),
    "unusable-configuration-signal": ('sys.exit("no configuration")', "os.abort()", "stands for a signal"),
    "stops-on-term": (
        "import json, os",
        "import signal; signal.signal(15, signal.SIG_IGN)\nimport json, os",
        "after TERM",
    ),
}


def options(tmp_path: Path, script: str, *only: str) -> simulator.Options:
    """The options to check a simulator that is this Python script."""
    path = tmp_path / "simulator.py"
    path.write_text(script)
    command = (sys.executable, str(path))
    return simulator.Options(command, b"short\n", b"long\n", timeout=10, grace=0.5, only=frozenset(only))


async def results(chosen: simulator.Options) -> dict[str, check.FinishedCheck]:
    """The finished checks, by name."""
    return {finished.name: finished async for finished in simulator.run(chosen)}


def not_passed(finished: Mapping[str, check.FinishedCheck]) -> dict[str, str]:
    """The messages of the checks that failed or were skipped, by name."""
    return {name: each.message for name, each in finished.items() if each.result is not check.CheckResult.PASSED}


async def test_our_own_simulator_conforms() -> None:
    """The small simulator of the local platform passes every check."""
    command = (sys.executable, "-P", str(servers.ROOT / "ems_worker" / "local" / "simulator.py"))
    finished = await results(simulator.Options(command))
    assert not_passed(finished) == {}
    assert list(finished) == [each.name for each in simulator.CHECKS]


async def test_a_correct_simulator_passes_all_checks(tmp_path: Path) -> None:
    """The unchanged script passes, so a changed script fails for its change."""
    assert not_passed(await results(options(tmp_path, RIGHT))) == {}


@pytest.mark.parametrize("way", FINDS)
async def test_each_violation_is_detected(tmp_path: Path, way: str) -> None:
    """A simulator that breaks the protocol in one way fails the check for it, whose message says why."""
    correct, wrong, message = FINDS[way]
    assert correct in RIGHT
    name = next(each.name for each in simulator.CHECKS if way.startswith(each.name))
    finished = (await results(options(tmp_path, RIGHT.replace(correct, wrong), name)))[name]
    assert finished.result is check.CheckResult.FAILED
    assert message in finished.message


async def test_every_check_has_a_simulator_that_fails_it() -> None:
    """For each check there is a fault that it detects, except for the check that can only be skipped."""
    checked = {each.name for each in simulator.CHECKS if any(way.startswith(each.name) for way in FINDS)}
    assert checked | {"seed-counts"} == {each.name for each in simulator.CHECKS}


async def test_checks_that_do_not_apply_are_skipped(tmp_path: Path) -> None:
    """A deterministic model without artifacts that ends before TERM fails no check."""
    script = RIGHT.replace("seed % 7", "7").replace('"log": "log"', "").replace("time.sleep(60)", "pass")
    finished = await results(options(tmp_path, script))
    skipped = not_passed(finished)
    assert set(skipped) == {"artifacts", "seed-counts", "stops-on-term"}
    assert "--long-config" in skipped["stops-on-term"]
    assert all(each.result is not check.CheckResult.FAILED for each in finished.values())


async def test_a_command_that_does_not_exist_fails_the_first_check(tmp_path: Path) -> None:
    """The other checks are skipped, because they could not pass either."""
    finished = await results(simulator.Options((str(tmp_path / "missing"),)))
    results_ = [each.result for each in finished.values()]
    assert results_ == [check.CheckResult.FAILED, *(len(results_) - 1) * [check.CheckResult.SKIPPED]]
    assert "can't be executed" in finished["completes"].message
    assert finished["metrics"].message == "completes failed"


async def test_placeholders_are_replaced_and_result_files_are_read(tmp_path: Path) -> None:
    """{config}, {seed}, {simulation_id} and {output_dir} can stand in the command, and metrics in result.json."""
    script = 'test -s "$1" && echo "{\\"metrics\\": {\\"seed\\": $2}}" > "$3/result.json" && test -n "$4"'
    command = ("sh", "-c", script, "sh", "{config}", "{seed}", "{output_dir}", "{simulation_id}")
    finished = await results(simulator.Options(command, only=frozenset({"metrics", "seed-counts"})))
    assert [each.result for each in finished.values()] == 2 * [check.CheckResult.PASSED]


async def test_a_run_that_takes_too_long_fails(tmp_path: Path) -> None:
    """A simulator that doesn't end within the timeout is killed and fails the check."""
    chosen = simulator.Options(("sleep", "61"), timeout=0.2, only=frozenset({"completes"}))
    async with asyncio.timeout(30):
        [finished] = (await results(chosen)).values()
    assert "it still runs after 0.2 s" in finished.message
