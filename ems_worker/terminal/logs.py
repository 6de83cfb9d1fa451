"""The output of other programs on standard output: unchanged in files and pipes, as plain lines on a terminal."""

import codecs
import re
import sys

from ems_worker.terminal import streams

# Colours and movements of the cursor (CSI), titles and links (OSC), and other short sequences.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-Z\\^-~])")
# How much is held back of a sequence whose end hasn't arrived.
_MAX_HELD = 256


class Log:
    """Writes bytes to standard output as they arrive.

    On a terminal, colours are left out, and a progress bar that returns to the beginning of its line is shown as
    lines; everything else that would control the terminal is replaced, as in all that we print.
    """

    def __init__(self) -> None:
        self._plain = sys.stdout.isatty()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._at_start = True

    def write(self, data: bytes) -> None:
        """Writes some bytes, and flushes them, since a person may be waiting."""
        if not data:
            return
        if self._plain:
            self._show(self._decoder.decode(data), final=False)
        else:
            streams.out_data(data)
            sys.stdout.buffer.flush()

    def close(self) -> None:
        """Writes what is held back, and ends the last line on a terminal."""
        if self._plain:
            self._show(self._decoder.decode(b"", final=True), final=True)
            if not self._at_start:
                streams.out_data(b"\n")
                sys.stdout.flush()

    def _show(self, decoded: str, *, final: bool) -> None:
        text = self._held + decoded
        self._held = ""
        if not final:
            text, self._held = _complete(text)
        text = _SEQUENCE.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
        if text:
            self._at_start = text.endswith("\n")
            streams.out_data(text.encode(errors="replace"))
            sys.stdout.flush()


def _complete(text: str) -> tuple[str, str]:
    """What can be shown, and what may be the beginning of a sequence or of a line's end."""
    begin = text.rfind("\x1b", max(0, len(text) - _MAX_HELD))
    if begin >= 0 and _SEQUENCE.match(text, begin) is None:
        return text[:begin], text[begin:]
    return (text[:-1], "\r") if text.endswith("\r") else (text, "")
