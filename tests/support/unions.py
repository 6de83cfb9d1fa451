"""Plans of several spaces, written as text."""


def united(*spaces: str, more: str = "") -> str:
    """A plan of these spaces; `more` precedes them."""
    return "{" + more + "parameter_space: [" + ", ".join(f"{{{each}}}" for each in spaces) + "]}"


def axes(text: str) -> str:
    """The axes of a space."""
    return f"parameter_space: {{{text}}}"


def grid(size: int, name: str = "a") -> str:
    """An axis with the values 1, 2, ..."""
    return f"{name}: {{range: {{start: 1, stop: {size}, num: {size}}}}}"
