"""Writing files so that a crash, a kill or a full disk never leaves half of one behind."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .errors import UserError


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes a file beside its place and moves it there; the old file survives any failure.

    Raises:
        UserError: The disk is full, the folder is missing, or writing is not allowed.
    """
    with open_atomically(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def open_atomically(path: Path) -> Iterator[IO[bytes]]:
    """A file to write into, beside its place, to which it is moved when the `with` ends well.

    Raises:
        UserError: As above.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        kept = "; the file that was there is unharmed" if path.exists() else ""
        raise UserError(f"cannot write {path}: {error.strerror or error}{kept}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
