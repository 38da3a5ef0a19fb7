"""A bar on the terminal while a file is fetched; nothing where nobody looks."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


@dataclass(frozen=True, slots=True)
class Bar:
    """Shows how much of a file is there; without a screen it shows nothing."""

    screen: "Progress | None" = None
    line: "TaskID | None" = None

    def place(self, done: int, total: int | None) -> None:
        """Moves to `done` bytes of `total`, None while the size is not known."""
        if self.screen is not None and self.line is not None:
            self.screen.update(self.line, completed=done, total=total)


@contextlib.contextmanager
def progress_bar(name: str) -> Iterator[Bar]:
    """A bar on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield Bar()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as screen:
        yield Bar(screen, screen.add_task(name, total=None))
