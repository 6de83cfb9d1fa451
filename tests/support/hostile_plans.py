"""Plans that are made to be expensive: by their unpacked size, their nesting, or the number of their problems."""

import gzip
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from ems_worker.adapters import plan_codec
from ems_worker.pb.fes.common.events.generic_event_request_pb2 import GenericEventRequest

# The worker's default limit.
MAX_BYTES: Final = 16 * 1024 * 1024
NEARLY: Final = MAX_BYTES - 1000


def _plan(base: str, **more: Any) -> bytes:
    """A plan with the text of a base configuration."""
    rest = json.dumps({"experiment_id": "hostile", **more})
    return f'{rest[:-1]},"base_config":{base}}}'.encode()


def _filled(piece: str, size: int = NEARLY, last: str = "0") -> str:
    """The text of a base configuration: a list that repeats a piece."""
    return '{"a":[' + f"{piece}," * ((size - 200) // (len(piece) + 1)) + f"{last}]}}"


def _text(piece: str, size: int = NEARLY, encoded: int = 1) -> str:
    """The text of a base configuration: a long text that repeats a piece."""
    return '{"a":"' + piece * ((size - 200) // (len(piece) * encoded)) + '"}'


def _runs(count: int, wrong: str = "", *, labels: bool = False) -> bytes:
    label = '"labels":{"batch":"a"},' if labels else ""
    entries = (
        f'{{"run_id_suffix":"p{n:06}",{label}'
        f'"params_override":{{"fish.speed{wrong}":{n * 0.125},"env.temp":{n + 0.5}}}}}'
        for n in range(count)
    )
    base = '{"fish":{"speed":1.0},"env":{"temp":20.0}}'
    return f'{{"experiment_id":"hostile","base_config":{base},"runs":[{",".join(entries)}]}}'.encode()


def _axis(values: str) -> bytes:
    return f'{{"experiment_id":"hostile","base_config":{{"a":0.5}},"parameter_space":{{"a":[{values}]}}}}'.encode()


def _misspelt(keys: int, paths: int) -> bytes:
    base = {f"parameter_number_{n}": 0 for n in range(keys)}
    return json.dumps(
        {
            "experiment_id": "hostile",
            "base_config": base,
            "parameter_space": {f"paramter_number_{n}": [1] for n in range(paths)},
        }
    ).encode()


def _enveloped(plan: bytes) -> bytes:
    return GenericEventRequest(event_type_key=plan_codec.TYPE_KEY, event_payload=plan).SerializeToString()


def _yaml(base: str) -> bytes:
    return f"experiment_id: hostile\nbase_config:\n{base}\n".encode()


# Each plan with its outcome: accepted, the code of its first problem, or dead if it goes to the dead letters.
JSON_PLANS: Final[Mapping[str, tuple[Callable[[], bytes], str]]] = {
    "a text of 16 MB": (lambda: _plan(_text("x")), "configuration_too_large"),
    "a text of 16 MB of escapes": (lambda: _plan(_text("\\n")), "configuration_too_large"),
    "a text of 16 MB of escaped surrogates": (lambda: _plan(_text("\\ud83d\\ude00")), "configuration_too_large"),
    "a text of 16 MB of escaped quotes, and NaN": (
        lambda: _plan(_text('x\\"')[:-1] + ',"b":NaN}'),
        "bad_number",
    ),
    "a text of 16 MB with one emoji": (lambda: _plan(_text("x")[:-2] + '\U0001f600"}'), "configuration_too_large"),
    "a text of 16 MB of words": (lambda: _plan(_text("x ")), "configuration_too_large"),
    "a text of 16 MB without end": (lambda: _plan(_text("x"))[:-3], "syntax"),
    "16 MB of backslashes without end": (lambda: _plan(_text("\\\\"))[:-3], "syntax"),
    "half of a surrogate pair in 16 MB": (lambda: _plan(_text("x")[:-2] + '\\ud83d"}'), "bad_text"),
    "16 MB of white space": (lambda: b" " * NEARLY + b"{}", "missing_key"),
    "16 MB of digits": (lambda: _plan('{"a":' + "9" * (NEARLY - 200) + "}"), "bad_number"),
    "16 MB of exponent": (lambda: _plan('{"a":1e' + "9" * (NEARLY - 200) + "}"), "bad_number"),
    "16 MB of brackets": (lambda: b"[" * NEARLY, "too_large"),
    "16 MB of pairs of brackets": (lambda: _plan(_filled("[]")), "too_large"),
    "16 MB of zeros": (lambda: _plan(_filled("0")), "too_large"),
    "16 MB of nulls": (lambda: _plan(_filled("null")), "too_large"),
    "16 MB of commas in a text": (lambda: _plan(_text(",")), "configuration_too_large"),
    "a million short keys": (
        lambda: _plan("{" + ",".join(f'"{n}":0' for n in range(1_000_000)) + "}"),
        "too_large",
    ),
    "as many lists as may be": (lambda: _plan(_filled("[]" + " " * 30)), "accepted"),
    "as many texts as may be": (
        lambda: _plan('{"a":[' + ",".join(f'"{n:015}"' for n in range(850_000)) + "]}"),
        "configuration_too_large",
    ),
    "as many objects as may be": (lambda: _plan(_filled('{"a":0}' + " " * 22)), "configuration_too_large"),
    "nested too deep": (lambda: _plan('{"a":' + "[" * 100 + "]" * 100 + "}"), "too_deep"),
    "nested far too deep": (lambda: _plan('{"a":' + "[" * 400_000 + "]" * 400_000 + "}"), "too_deep"),
    "many keys twice": (lambda: _plan("{" + ",".join(['"a":0'] * 200_000) + "}"), "duplicate_key"),
    "one key twice in many": (
        lambda: _plan("{" + ",".join(f'"{n}":0' for n in range(400_000)) + ',"7":1}'),
        "duplicate_key",
    ),
    "a hundred thousand named points": (lambda: _runs(100_000), "accepted"),
    "a hundred thousand points with labels": (lambda: _runs(100_000, labels=True), "accepted"),
    "a hundred thousand points with a wrong path": (lambda: _runs(100_000, wrong="_"), "unknown_path"),
    "a hundred thousand values": (lambda: _axis(",".join(f"{n}.25" for n in range(100_000))), "accepted"),
    "300,000 values": (lambda: _axis(",".join(f"{n}.25" for n in range(300_000))), "accepted"),
    "300,000 values, all the same": (lambda: _axis(",".join(["1.25"] * 300_000)), "accepted"),
    "4,000 keys and 40 misspelt paths": (lambda: _misspelt(4000, 40), "unknown_path"),
    "1,000 keys and 40 misspelt paths": (lambda: _misspelt(1000, 40), "unknown_path"),
    "100,000 misspelt paths": (lambda: _misspelt(1000, 100_000), "unknown_path"),
    "200,000 unknown keys": (
        lambda: b'{"experiment_id":"hostile",' + b",".join(b'"k%d":0' % n for n in range(200_000)) + b"}",
        "unknown_key",
    ),
    "a description of 16 MB": (lambda: _plan("{}", description="x" * (NEARLY - 200)), "out_of_range"),
}
WRAPPED_PLANS: Final[Mapping[str, tuple[Callable[[], bytes], str]]] = {
    "16 KB of gzip around 16 MB": (lambda: gzip.compress(_plan(_text('x\\"')[:-1] + ',"b":NaN}')), "bad_number"),
    "gzip over the limit": (lambda: gzip.compress(b"x" * (MAX_BYTES + 1)), "plan_too_large"),
    "gzip around an envelope": (lambda: gzip.compress(_enveloped(_plan(_text("x")))), "configuration_too_large"),
    "an envelope of 16 MB": (lambda: _enveloped(_plan(_text("x", NEARLY - 200))), "configuration_too_large"),
    "16 MB of unknown fields": (lambda: b"\x78\x01" * (NEARLY // 2), "syntax"),
    "16 MB of type keys": (lambda: b"\x12\x01a" * (NEARLY // 3), "dead"),
    "16 MB of groups": (lambda: b"\x7b\x7c" * (NEARLY // 2), "too_large"),
    "16 MB of no text": (lambda: b"\xff" * NEARLY, "dead"),
}
YAML_PLANS: Final[Mapping[str, tuple[Callable[[], bytes], str]]] = {
    "a plain yaml text of 16 MB": (lambda: _yaml("  a: " + "x" * NEARLY), "configuration_too_large"),
    "a yaml text of 4 MB": (lambda: _yaml('  a: "' + "x" * 4_000_000 + '"'), "accepted"),
    "a yaml text of 4 MB of escapes": (lambda: _yaml('  a: "' + "\\n" * 2_000_000 + '"'), "accepted"),
    "a yaml text of 4 MB without end": (lambda: _yaml('  a: "' + "x" * 4_000_000), "syntax"),
    "a yaml key of 4 MB": (lambda: _yaml("  " + "x" * 4_000_000 + ": 1"), "syntax"),
    "4 MB of yaml brackets": (lambda: _yaml("  a: " + "[" * 4_000_000), "syntax"),
    "4 MB of yaml question marks": (lambda: _yaml("? " * 2_000_000), "too_deep"),
    "many yaml values": (lambda: _yaml("  a: [" + "1," * 2_000_000 + "1]"), "too_large"),
    "as many yaml values as may be": (lambda: _yaml("  a: [" + "1," * 99_000 + "1]"), "accepted"),
    "many yaml keys twice": (lambda: _yaml("  a: 1\n" * 45_000), "duplicate_key"),
    "yaml anchors": (
        lambda: _yaml("  a0: &a0 [1]\n" + "".join(f"  a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(1000))),
        "anchor",
    ),
    "4 MB of yaml comments": (lambda: _yaml("  a: 1\n" + "# x\n" * 1_000_000), "accepted"),
    "4 MB of yaml documents": (lambda: b"---\n" * 1_000_000, "many_documents"),
}
PLANS: Final = {**JSON_PLANS, **WRAPPED_PLANS, **YAML_PLANS}
