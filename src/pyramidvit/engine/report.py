"""What a run says: to the terminal, and word for word to its log file."""

import contextlib
import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from ..errors import printable

KEY_WIDTH = 12


class Reporter:
    """Prints lines and a live progress bar; silent in all processes but the first.

    The bar is drawn on terminals only. `log` names a file that receives every line with its time.
    """

    def __init__(self, *, speaks: bool = True) -> None:
        self.speaks = speaks
        self.console = Console(quiet=not speaks, highlight=False, soft_wrap=True)
        self.log: Path | None = None
        self.early: list[str] = []  # lines said before the log file existed

    def say(self, key: str, text: str) -> None:
        """Prints "key   text"."""
        line = printable(f"{key:<{KEY_WIDTH - 1}} {text}")
        self.console.print(f" {line}", markup=False)
        self.write(line)

    def write(self, line: str) -> None:
        if not self.speaks:
            return
        stamped = f"{datetime.now().isoformat(timespec='seconds')}  {line}\n"
        if self.log is None:
            self.early.append(stamped)
            return
        with contextlib.suppress(OSError), self.log.open("a", encoding="utf-8") as file:
            file.write(stamped)  # on a full disk the weights matter, not the log

    def open_log(self, path: Path) -> None:
        """Sends all lines to a file from now on, those said so far included."""
        self.log = path
        if self.speaks:
            with path.open("a", encoding="utf-8") as file:
                file.writelines(self.early)
        self.early = []

    @contextlib.contextmanager
    def progress(self, name: str, total: int) -> Iterator["Bar"]:
        """A live bar for a piece of work of `total` parts."""
        bar = Progress(
            TextColumn(" {task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=self.console,
            transient=True,
            disable=not (self.speaks and self.console.is_terminal),
        )
        with bar:
            yield Bar(bar, bar.add_task(f"{name:<{KEY_WIDTH}}", total=total, figures=""))


class Notes(logging.Handler):
    """Says what the package logs, such as what loading a checkpoint did, while it is in use."""

    def __init__(self, reporter: Reporter, key: str) -> None:
        super().__init__(logging.INFO)
        self.reporter, self.key = reporter, key
        self.logger = logging.getLogger("pyramidvit")

    def emit(self, record: logging.LogRecord) -> None:
        self.reporter.say(self.key, record.getMessage())

    def __enter__(self) -> None:
        self.logger.addHandler(self)
        self.logger.setLevel(logging.INFO)

    def __exit__(self, *_: object) -> None:
        self.logger.removeHandler(self)


class Bar:
    """A part of `Reporter.progress`."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self.progress, self.task = progress, task

    def advance(self, figures: str = "", *, to: int | None = None) -> None:
        if to is None:
            self.progress.update(self.task, advance=1, figures=figures)
        else:
            self.progress.update(self.task, completed=to, figures=figures)
