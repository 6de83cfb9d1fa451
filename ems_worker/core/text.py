"""Text from other systems, limited in length and to characters that can be stored and displayed."""

# In characters.
MAX_NAME = 200
MAX_MESSAGE = 4000


def clip(value: object, max_length: int = MAX_MESSAGE) -> str | None:
    """The text, truncated to `max_length` characters; None if the value is empty or not a text."""
    if not isinstance(value, str) or not value:
        return None
    return encodable(value if len(value) <= max_length else value[: max_length - 1] + "…")


def single_line(value: object, max_length: int) -> str:
    """The text as one line of printable characters, truncated to `max_length`; empty if the value is not a text."""
    return "".join(char if char.isprintable() else " " for char in clip(value, max_length) or "")


def encodable(text: str) -> str:
    """The text without lone surrogates, which JSON can represent but SQLite and UTF-8 can't."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
