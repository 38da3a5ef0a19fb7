"""Unreadable images: each is named once, and too many of them end the work."""

from collections.abc import Iterable

import torch

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

    def check(self) -> None:
        """Refuses to go on with too many; a single one always passes.

        Raises:
            UserError: The share of unreadable images is above the limit.
        """
        if len(self.seen) > max(1, self.most * self.count):
            path, why = next(iter(self.seen.items()))
            raise UserError(
                f"{len(self.seen)} of {self.count} images cannot be read, more than"
                f" {self.most:.0%} (the first is {path}: {why}): mend or remove them, or allow"
                f" more with --max_broken"
            )

    def share(self, ranks: int) -> None:
        """Lets every process know of the files that the others met, and checks."""
        if ranks > 1:
            gathered: list[dict[str, str]] = [{}] * ranks
            torch.distributed.all_gather_object(gathered, self.seen)
            for seen in gathered:
                self.note(BrokenImage(path, why) for path, why in sorted(seen.items()))
        self.check()
