"""Unreadable images: each is named once, and too many of them end the work."""

from collections.abc import Iterable

from ..data.images import BrokenImage
from ..errors import UserError
from .report import Reporter


class BrokenImages:
    """Keeps count of the unreadable files met so far.

    Args:
        reporter: Is told each file at its first sight.
        count: Number of all images.
        most: Share of `count` from which on the work is refused.
    """

    def __init__(self, reporter: Reporter, count: int, most: float) -> None:
        self.reporter = reporter
        self.count = count
        self.most = most
        self.seen: dict[str, str] = {}

    def note(self, errors: Iterable[BrokenImage]) -> None:
        """Names new ones."""
        for error in errors:
            if error.path not in self.seen:
                self.seen[error.path] = error.reason
                self.reporter.say("skipped", str(error))

    def check(self, total: int) -> None:
        """Refuses to go on with too many; `total` must be the same in all processes.

        Raises:
            UserError: The share of unreadable images is above the limit.
        """
        if total > self.most * self.count:
            named = [f" (the first is {path}: {why})" for path, why in self.seen.items()]
            raise UserError(
                f"{total} of {self.count} images cannot be read, more than {self.most:.0%}"
                f"{''.join(named[:1])}: mend or remove them, or allow more with --max_broken"
            )
