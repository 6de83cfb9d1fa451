"""Words of others on a terminal: seen, and not obeyed."""

import contextlib
import io
import json
import os
import sys
import unicodedata
from collections.abc import Iterator
from typing import TextIO

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ems_worker.terminal import drawing, streams, text
from tests.support import hostile_words

CONTROLS = [chr(number) for number in (*range(32), *range(127, 160)) if chr(number) not in "\n\t"]
DECEIVERS = list(
    "\u200b\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029\u00ad\u2060\ufeff"
    "\ud800\udfff\U000e0041\ue000\uffff\u3164\u034f\ufff9"
)


@pytest.mark.parametrize("character", [*CONTROLS, *DECEIVERS], ids=ascii)
def test_what_commands_or_deceives_is_replaced(character: str) -> None:
    """One by one: columns stay where they are."""
    assert text.clean(f"a{character}b") == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize(
    "words",
    [
        "plain text, ± 3 °C",
        "Häufigkeit der Fische",
        "рыба и риф",
        "魚とサンゴ\u3000全角",
        "ปลาการ์ตูนน้ำ",
        "می\u200cخوریم",
        "क्\u200dष मछली",
        "e\u0301cole",
        "דָּגִים",
        "\U0001f469\u200d\U0001f52c \U0001f44d\U0001f3fd \u2764\ufe0f",
    ],
    ids=ascii,
)
def test_text_of_any_language_stays(words: str) -> None:
    """With its marks, its joiners and its emoji."""
    assert text.clean(words) == words
    assert text.line(words) == words


def test_line_ends_stay_but_in_a_line() -> None:
    """A tab is a space: how wide it is depends on where it stands."""
    assert text.clean("a\n\tb") == "a\n b"
    assert text.line("a\nb") == "a\N{REPLACEMENT CHARACTER}b"


def test_marks_are_not_heaped_up_over_other_lines() -> None:
    """No more than six on a letter, of whatever kind."""
    heaped = text.clean("a" + "\u0301\u0316" * 50 + "b")
    assert sum(unicodedata.category(one) == "Mn" for one in heaped) == 6


def test_joiners_between_letters_that_do_without_are_replaced() -> None:
    """`reef` and `re\u200cef` would look the same."""
    for joiner in "\u200c\u200d":
        assert text.clean(f"re{joiner}ef") == "re\N{REPLACEMENT CHARACTER}ef"
        assert text.clean(f"م{joiner}{joiner}م") == f"م{joiner}\N{REPLACEMENT CHARACTER}م"


@given(st.text())
@example(hostile_words.ALL)
def test_whatever_comes_nothing_is_left_that_commands(words: str) -> None:
    """Cleaning again changes nothing, and no character is added or lost."""
    cleaned = text.clean(words)
    assert len(cleaned) == len(words)
    assert text.clean(cleaned) == cleaned
    assert not hostile_words.found(cleaned)


@given(st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
@example({hostile_words.ALL: hostile_words.ALL, "tag": "\U000e0041"})
def test_escaped_json_says_the_same(document: object) -> None:
    """To any reader of JSON; nothing in it commands."""
    escaped = text.escaped(json.dumps(document, ensure_ascii=False))
    assert json.loads(escaped) == document
    assert not hostile_words.found(escaped)


class Terminal(io.TextIOWrapper):
    """Says that it is one."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding=encoding, write_through=True)

    def isatty(self) -> bool:
        return True


@contextlib.contextmanager
def guarded() -> Iterator[Terminal]:
    """Standard output and standard error lead to a terminal, guarded."""
    one = Terminal()
    with contextlib.redirect_stdout(one), contextlib.redirect_stderr(one):
        streams.guard()
        yield one


def test_bytes_and_text_come_to_a_terminal_by_the_same_way() -> None:
    """In their order; bytes that are no text, or end in the middle of a letter, are no exception."""
    with guarded() as terminal:
        print("é\x1b]0;x\x07", end="")
        sys.stdout.buffer.write("ü\x9b".encode()[:3])
        sys.stdout.buffer.write("ü\x9b".encode()[3:] + b"\x9b\xff")
        sys.stderr.write("\u202e")
        streams.say("\r")
        sys.stdout.flush()
    assert terminal.bytes.getvalue().decode() == "é\ufffd]0;x\ufffdü\ufffd\ufffd\ufffd\ufffd\ufffd\n"


def test_a_terminal_of_an_old_encoding_is_no_reason_to_fail() -> None:
    """What it has no letter for is a question mark."""
    one = Terminal("latin-1")
    streams.guarded(one).write("é魚\ud800\x9b")
    assert one.bytes.getvalue() == b"\xe9???"


def test_a_file_gets_what_was_written() -> None:
    """Data stays as it is where no terminal is."""
    file = io.StringIO()
    assert streams.guarded(file) is file


def test_our_own_styles_reach_the_terminal_and_those_of_others_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The words of a table, a label or a bar are cleaned, then styled."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with guarded() as terminal:
        drawing.show(sys.stderr, "a\x1b[31m ", ("b\x1b[2J", "bold red"))
    assert terminal.bytes.getvalue().decode() == "a\ufffd[31m \x1b[1;31mb\ufffd[2J\x1b[0m\n"


def test_a_guarded_stream_is_what_libraries_expect() -> None:
    """It has an encoding, a number, and can't be closed by what wraps it."""
    with guarded() as terminal:
        one: TextIO = sys.stdout
        assert (one.encoding, one.errors, one.isatty(), one.writable()) == ("utf-8", "replace", True, True)
        streams.guard()
        assert sys.stdout is one
        one.close()
        one.buffer.close()
        assert not terminal.closed
    with open(os.devnull, "w") as file:
        assert streams.Guarded(file).fileno() == file.fileno()
