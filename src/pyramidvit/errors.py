"""The one kind of error that a user can mend; every room may raise it."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """What must hold, what was given, where, and what to do, in one line.

    The command line prints it without a traceback and exits with code 2.
    """


def nearest(name: str, known: Iterable[str], most: int = 2) -> str:
    """The known names nearest to a wrong one, for an error message: "a, b"."""
    known = list(known)
    return ", ".join(difflib.get_close_matches(name, known, n=most, cutoff=0.3) or known[:most])


def one_line(error: Exception) -> str:
    """The first line of somebody else's message, or the error's kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def printable(text: str) -> str:
    """A text from a file, with what could move a terminal's cursor or break the line escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
