"""The conformance kit's checks of simulators: our own passes, and each way of breaking the protocol is found."""

import asyncio
import sys
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
# What is said where this takes the place of that in the right one.
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
    """A kit for a simulator that is this Python script."""
    path = tmp_path / "simulator.py"
    path.write_text(script)
    command = (sys.executable, str(path))
    return simulator.Options(command, b"short\n", b"long\n", timeout=10, grace=0.5, only=frozenset(only))


async def results(chosen: simulator.Options) -> dict[str, check.Result]:
    return {one.name: one async for one in simulator.run(chosen)}


async def test_the_small_fish_conform() -> None:
    """Our own simulator passes every check."""
    command = (sys.executable, "-P", str(servers.ROOT / "ems_worker" / "local" / "simulator.py"))
    found = await results(simulator.Options(command))
    assert {name: one.words for name, one in found.items() if one.outcome is not check.Outcome.PASSED} == {}
    assert list(found) == [one.name for one in simulator.CHECKS]


async def test_a_right_simulator_passes_all(tmp_path: Path) -> None:
    """The script passes as it is: what the others fail for is what was changed in them."""
    found = await results(options(tmp_path, RIGHT))
    assert {name: one.words for name, one in found.items() if one.outcome is not check.Outcome.PASSED} == {}


@pytest.mark.parametrize("way", FINDS)
async def test_each_way_of_being_wrong_is_found(tmp_path: Path, way: str) -> None:
    """A simulator that breaks the protocol in one way fails at the check that is about it, which says why."""
    that, this, words = FINDS[way]
    assert that in RIGHT
    name = next(one.name for one in simulator.CHECKS if way.startswith(one.name))
    found = (await results(options(tmp_path, RIGHT.replace(that, this), name)))[name]
    assert found.outcome is check.Outcome.FAILED
    assert words in found.words


async def test_every_check_has_a_simulator_that_fails_it() -> None:
    """No check is without its wrong simulator, but the one that can only be skipped."""
    checked = {one.name for one in simulator.CHECKS if any(way.startswith(one.name) for way in FINDS)}
    assert checked | {"seed-counts"} == {one.name for one in simulator.CHECKS}


async def test_what_says_nothing_against_a_simulator_is_skipped(tmp_path: Path) -> None:
    """A model without chance, without artifacts, that is too quick for TERM is told so, and hasn't failed."""
    script = RIGHT.replace("seed % 7", "7").replace('"log": "log"', "").replace("time.sleep(60)", "pass")
    found = await results(options(tmp_path, script))
    skipped = {name: one.words for name, one in found.items() if one.outcome is check.Outcome.SKIPPED}
    assert set(skipped) == {"artifacts", "seed-counts", "stops-on-term"}
    assert "--long-config" in skipped["stops-on-term"]
    assert all(one.outcome is not check.Outcome.FAILED for one in found.values())


async def test_a_command_that_does_not_exist_fails_once(tmp_path: Path) -> None:
    """What can't be executed fails the first check, and the others are skipped for it."""
    found = await results(simulator.Options((str(tmp_path / "missing"),)))
    outcomes = [one.outcome for one in found.values()]
    assert outcomes == [check.Outcome.FAILED, *(len(outcomes) - 1) * [check.Outcome.SKIPPED]]
    assert "can't be executed" in found["completes"].words
    assert found["metrics"].words == "completes failed"


async def test_placeholders_and_result_files_work_too(tmp_path: Path) -> None:
    """The words of the command have {config}, {seed}, {simulation_id}, {output_dir} filled in; result.json is read."""
    script = 'test -s "$1" && echo "{\\"metrics\\": {\\"seed\\": $2}}" > "$3/result.json" && test -n "$4"'
    command = ("sh", "-c", script, "sh", "{config}", "{seed}", "{output_dir}", "{simulation_id}")
    found = await results(simulator.Options(command, only=frozenset({"metrics", "seed-counts"})))
    assert [one.outcome for one in found.values()] == 2 * [check.Outcome.PASSED]


async def test_a_run_that_takes_too_long_fails(tmp_path: Path) -> None:
    """A simulator that does not end is ended, and has failed."""
    chosen = simulator.Options(("sleep", "61"), timeout=0.2, only=frozenset({"completes"}))
    async with asyncio.timeout(5):
        [found] = (await results(chosen)).values()
    assert "it still runs after 0.2 s" in found.words
