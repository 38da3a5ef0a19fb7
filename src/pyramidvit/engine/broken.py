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
        """Names new ones.

        Raises:
            UserError: The share of unreadable images is above the limit.
        """
        for error in errors:
            if error.path not in self.seen:
                self.seen[error.path] = error.reason
                self.reporter.say("skipped", str(error))
        if len(self.seen) > self.most * self.count:
            first = next(iter(self.seen))
            raise UserError(
                f"{len(self.seen)} of {self.count} images cannot be read, more than"
                f" {self.most:.0%} (the first is {first}: {self.seen[first]}): mend or remove them,"
                f" or allow more with --max_broken"
            )
