"""Results as TAP 14 and as JUnit XML. Pure."""

import json
from collections.abc import Iterable, Iterator, Sequence
from xml.etree import ElementTree

from ems_worker.conformance import check

_XML_FORBIDS = {number: "\N{REPLACEMENT CHARACTER}" for number in range(32) if chr(number) not in "\t\n\r"}


def head(count: int) -> Iterator[str]:
    """The lines before the first result."""
    yield "TAP version 14"
    yield f"1..{count}"


def line(number: int, result: check.Result) -> Iterator[str]:
    """A result's lines."""
    title = f"{number} - {result.name}: {result.meaning}".replace("#", "\\#")
    if result.outcome is check.Outcome.SKIPPED:
        yield f"ok {title} # SKIP {' '.join(result.words.split())}"
        return
    if result.outcome is check.Outcome.PASSED:
        yield f"ok {title}"
        return
    yield f"not ok {title}"
    yield "  ---"
    # JSON strings are YAML strings.
    yield f"  message: {json.dumps(result.words, ensure_ascii=False)}"
    yield f"  seconds: {result.seconds:.3f}"
    yield "  ..."


def summary(results: Iterable[check.Result]) -> str:
    """The last line, for people: `# 17 passed, 0 failed, 2 skipped`."""
    outcomes = [one.outcome for one in results]
    return "# " + ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in check.Outcome)


def passed(results: Iterable[check.Result]) -> bool:
    """Whether nothing failed."""
    return all(one.outcome is not check.Outcome.FAILED for one in results)


def junit(suite: str, results: Sequence[check.Result]) -> bytes:
    """The results as a JUnit XML file."""
    outcomes = [one.outcome for one in results]
    attributes = {
        "name": suite,
        "tests": str(len(results)),
        "failures": str(outcomes.count(check.Outcome.FAILED)),
        "errors": "0",
        "skipped": str(outcomes.count(check.Outcome.SKIPPED)),
        "time": f"{sum(one.seconds for one in results):.3f}",
    }
    root = ElementTree.Element("testsuites")
    element = ElementTree.SubElement(root, "testsuite", attributes)
    for one in results:
        case = {"classname": suite, "name": one.name, "time": f"{one.seconds:.3f}"}
        test = ElementTree.SubElement(element, "testcase", case)
        words = one.words.translate(_XML_FORBIDS)
        if one.outcome is check.Outcome.FAILED:
            ElementTree.SubElement(test, "failure", {"message": words}).text = f"{one.meaning}\n{words}"
        elif one.outcome is check.Outcome.SKIPPED:
            ElementTree.SubElement(test, "skipped", {"message": words})
    ElementTree.indent(root)
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written
