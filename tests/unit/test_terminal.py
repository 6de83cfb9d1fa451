"""Text from other people is displayed on a terminal, and none of it is interpreted."""

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
def test_control_and_deceptive_characters_are_replaced(character: str) -> None:
    """Each is replaced by one character, so that columns stay aligned."""
    assert text.clean(f"a{character}b") == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize(
    "content",
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
def test_text_of_any_language_is_unchanged(content: str) -> None:
    """Marks, joiners and emoji are kept where a language needs them."""
    assert text.clean(content) == content
    assert text.line(content) == content


def test_line_ends_are_kept_except_in_a_single_line() -> None:
    """Tabs become spaces, since their width depends on the column."""
    assert text.clean("a\n\tb") == "a\n b"
    assert text.line("a\nb") == "a\N{REPLACEMENT CHARACTER}b"


def test_a_letter_has_at_most_six_marks() -> None:
    """More marks would cover the lines above and below, so that further ones are replaced."""
    cleaned = text.clean("a" + "\u0301\u0316" * 50 + "b")
    assert sum(unicodedata.category(character) == "Mn" for character in cleaned) == 6


def test_joiners_between_letters_that_do_not_need_them_are_replaced() -> None:
    """`reef` and `re\u200cef` would look the same otherwise."""
    for joiner in "\u200c\u200d":
        assert text.clean(f"re{joiner}ef") == "re\N{REPLACEMENT CHARACTER}ef"
        assert text.clean(f"م{joiner}{joiner}م") == f"م{joiner}\N{REPLACEMENT CHARACTER}م"


@given(st.text())
@example(hostile_words.ALL)
def test_cleaned_text_has_no_dangerous_character(content: str) -> None:
    """This holds for any text; cleaning keeps its length, and cleaning again changes nothing."""
    cleaned = text.clean(content)
    assert len(cleaned) == len(content)
    assert text.clean(cleaned) == cleaned
    assert not hostile_words.dangerous_characters(cleaned)


@given(st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
@example({hostile_words.ALL: hostile_words.ALL, "tag": "\U000e0041"})
def test_escaped_json_is_equivalent_and_has_no_dangerous_character(document: object) -> None:
    """Any JSON parser reads the same document from it."""
    escaped = text.escaped(json.dumps(document, ensure_ascii=False))
    assert json.loads(escaped) == document
    assert not hostile_words.dangerous_characters(escaped)


class Terminal(io.TextIOWrapper):
    """A stream in memory that claims to be a terminal."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding=encoding, write_through=True)

    def isatty(self) -> bool:
        return True


@contextlib.contextmanager
def guarded() -> Iterator[Terminal]:
    """Redirects standard output and standard error to a terminal and guards them."""
    terminal = Terminal()
    with contextlib.redirect_stdout(terminal), contextlib.redirect_stderr(terminal):
        streams.guard()
        yield terminal


def test_bytes_and_text_reach_a_terminal_cleaned_and_in_order() -> None:
    """Bytes that aren't text, or that end in the middle of a character, are handled too."""
    with guarded() as terminal:
        print("é\x1b]0;x\x07", end="")
        sys.stdout.buffer.write("ü\x9b".encode()[:3])
        sys.stdout.buffer.write("ü\x9b".encode()[3:] + b"\x9b\xff")
        sys.stderr.write("\u202e")
        streams.say("\r")
        sys.stdout.flush()
    assert terminal.bytes.getvalue().decode() == "é\ufffd]0;x\ufffdü\ufffd\ufffd\ufffd\ufffd\ufffd\n"


def test_a_terminal_with_an_old_encoding_shows_question_marks() -> None:
    """Characters that the encoding lacks are replaced instead of raising an error."""
    terminal = Terminal("latin-1")
    streams.guarded(terminal).write("é魚\ud800\x9b")
    assert terminal.bytes.getvalue() == b"\xe9???"


def test_a_file_is_not_guarded() -> None:
    """Data that isn't written to a terminal is unchanged."""
    file = io.StringIO()
    assert streams.guarded(file) is file


def test_our_own_styles_reach_the_terminal_and_those_in_the_text_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The text of a table, a label or a bar is cleaned before it is styled."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with guarded() as terminal:
        drawing.show(sys.stderr, "a\x1b[31m ", ("b\x1b[2J", "bold red"))
    assert terminal.bytes.getvalue().decode() == "a\ufffd[31m \x1b[1;31mb\ufffd[2J\x1b[0m\n"


def test_a_guarded_stream_has_the_interface_of_a_text_stream() -> None:
    """It has an encoding and a descriptor, is guarded only once, and closing it leaves the terminal open."""
    with guarded() as terminal:
        stream: TextIO = sys.stdout
        assert (stream.encoding, stream.errors, stream.isatty(), stream.writable()) == ("utf-8", "replace", True, True)
        streams.guard()
        assert sys.stdout is stream
        stream.close()
        stream.buffer.close()
        assert not terminal.closed
    with open(os.devnull, "w") as file:
        assert streams.Guarded(file).fileno() == file.fileno()
