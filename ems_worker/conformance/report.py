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


def lines(number: int, finished: check.FinishedCheck) -> Iterator[str]:
    """The lines for a check."""
    title = f"{number} - {finished.name}: {finished.meaning}".replace("#", "\\#")
    if finished.result is check.CheckResult.SKIPPED:
        yield f"ok {title} # SKIP {' '.join(finished.message.split())}"
        return
    if finished.result is check.CheckResult.PASSED:
        yield f"ok {title}"
        return
    yield f"not ok {title}"
    yield "  ---"
    # A JSON string is also a YAML string.
    yield f"  message: {json.dumps(finished.message, ensure_ascii=False)}"
    yield f"  seconds: {finished.seconds:.3f}"
    yield "  ..."


def summary(finished: Iterable[check.FinishedCheck]) -> str:
    """The last line, for people: `# 17 passed, 0 failed, 2 skipped`."""
    results = [each.result for each in finished]
    return "# " + ", ".join(f"{results.count(result)} {result}" for result in check.CheckResult)


def passed(finished: Iterable[check.FinishedCheck]) -> bool:
    """Whether no check failed."""
    return all(each.result is not check.CheckResult.FAILED for each in finished)


def junit(suite: str, finished: Sequence[check.FinishedCheck]) -> bytes:
    """The checks as a JUnit XML file."""
    results = [each.result for each in finished]
    attributes = {
        "name": suite,
        "tests": str(len(results)),
        "failures": str(results.count(check.CheckResult.FAILED)),
        "errors": "0",
        "skipped": str(results.count(check.CheckResult.SKIPPED)),
        "time": f"{sum(each.seconds for each in finished):.3f}",
    }
    root = ElementTree.Element("testsuites")
    element = ElementTree.SubElement(root, "testsuite", attributes)
    for each in finished:
        case = {"classname": suite, "name": each.name, "time": f"{each.seconds:.3f}"}
        test = ElementTree.SubElement(element, "testcase", case)
        message = each.message.translate(_XML_FORBIDS)
        if each.result is check.CheckResult.FAILED:
            ElementTree.SubElement(test, "failure", {"message": message}).text = f"{each.meaning}\n{message}"
        elif each.result is check.CheckResult.SKIPPED:
            ElementTree.SubElement(test, "skipped", {"message": message})
    ElementTree.indent(root)
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written
