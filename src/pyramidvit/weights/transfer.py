"""Fetching one file over HTTP: cut connections are resumed, and no half or wrong file is left.

While a file is fetched it lies beside its place as `<name>.part`, and `<name>.part.json` says which
version of it the server was sending. Only a part of that very version is gone on with.
"""

import contextlib
import hashlib
import json
import logging
import os
import time
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPResponse
from pathlib import Path

from ..errors import UserError
from ..files import write_atomically
from .progress import Bar, progress_bar
from .web import CutError, UnreachableError, check_address, open_address, read

TRIES = 5  # in a row that bring less than PROGRESS bytes
PROGRESS = 1 << 20
PAUSE = 0.25  # seconds before the first new try; twice as long before each further one

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Part:
    """What is there of a file that is being fetched.

    Attributes:
        path: The file with the bytes so far.
        address: Where they came from.
        validator: The server's strong ETag, or its Last-Modified; None if it gave neither, and
            then the bytes cannot be told from those of another version, so they are not used.
    """

    path: Path
    address: str
    validator: str | None = field(init=False, default=None)

    @property
    def note(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def resume(self) -> int:
        """The number of bytes that can be gone on with."""
        self.validator = None
        try:
            known = json.loads(self.note.read_text())
            if known["address"] == self.address and isinstance(known["validator"], str):
                self.validator = known["validator"]
                return self.path.stat().st_size
        except (OSError, ValueError, KeyError, TypeError):
            pass  # no part, or not one of ours: start at the first byte
        return 0

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def start(self, headers: Message) -> None:
        """Notes the version of the file that now comes from its first byte."""
        self.remove()
        self.validator = validator_of(headers)
        write_atomically(
            self.note, json.dumps({"address": self.address, "validator": self.validator})
        )

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def transfer(address: str, path: Path, *, sha256: str | None = None) -> None:
    """Fetches a file, going on with what an earlier call left; on any failure `path` is not made.

    Args:
        address: Begins with http:// or https://; proxies of the environment are used.
        path: Where the file shall lie; its folder must exist.
        sha256: The digest it must have, or the digest's beginning.

    Raises:
        UserError: The server has no such file or refuses it, the file is not what it should be,
            it cannot be written, or the connection breaks again and again.
        UnreachableError: No server answered.
    """
    check_address(address)
    part = Part(path=path.with_name(f"{path.name}.part"), address=address)
    log.info("fetching %s", address)
    with progress_bar(path.name) as bar:
        fetch_all(part, bar)
    finish(part, path, sha256)
    log.info("fetched %s (%.1f MB)", path, path.stat().st_size / 1e6)


def fetch_all(part: Part, bar: Bar) -> None:
    """Asks again for the rest until the file is whole."""
    failures = 0
    heard = False  # a server that never answered in this call will not by being asked again
    while True:
        before = part.resume()
        try:
            return fetch_rest(part, before, bar)
        except (CutError, UnreachableError) as error:
            heard |= isinstance(error, CutError)
            gained = part.size() - before
            failures = 0 if gained >= PROGRESS else failures + 1
            if isinstance(error, UnreachableError) and (not heard or failures == TRIES):
                raise
            if failures == TRIES:
                raise UserError(
                    f"cannot fetch {part.address}: {error}, {TRIES} times in a row; what came is"
                    " kept, and the same command goes on with it"
                ) from error
            log.info("%s: %s; asking for the rest", part.address, error)
            time.sleep(min(8.0, PAUSE * 2**failures))


def fetch_rest(part: Part, offset: int, bar: Bar) -> None:
    """One request: adds what comes of it to the part; returns when the file is whole."""
    with open_address(part.address, offset, part.validator) as response:
        offset, total = place_of(response, part, offset)
        offset = append(response, part.path, offset, total, bar)
    if total is not None and offset < total:
        raise CutError(f"the connection ended {total - offset} bytes early")


def place_of(response: HTTPResponse, part: Part, asked: int) -> tuple[int, int | None]:
    """Where the coming bytes belong, and the size of the whole file where the server says it."""
    headers = response.headers
    if headers.get_content_type() == "text/html":
        raise UserError(
            f"{part.address} gave a web page instead of a file: a login page of the network, or"
            " the file is gone"
        )
    if response.status == 206:
        span, _, whole = headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        total = int(whole) if whole.isdecimal() else None
        same = validator_of(headers) in (None, part.validator)
        if not same or span.split("-")[0] != str(asked):
            part.remove()
            raise CutError("the server went on with another version of the file")
        return asked, total
    part.start(headers)
    length = headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def validator_of(headers: Message) -> str | None:
    """What tells one version of a file from another; a weak ETag does not promise equal bytes."""
    etag: str | None = headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return etag
    modified: str | None = headers.get("Last-Modified")
    return modified


def append(response: HTTPResponse, path: Path, offset: int, total: int | None, bar: Bar) -> int:
    """Writes what comes, from `offset` on; returns how many bytes the file has then."""
    try:
        with path.open("ab" if offset else "wb") as file:
            bar.place(offset, total)
            while chunk := read(response):
                file.write(chunk)
                offset += len(chunk)
                bar.place(offset, total)
    except OSError as error:  # of writing alone: those of reading are turned into cuts
        with contextlib.suppress(OSError):
            path.unlink()  # on a full disk it holds the room that is needed
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    return offset


def finish(part: Part, path: Path, expected: str | None) -> None:
    """Moves a whole part to its place, if its digest is the expected one."""
    with part.path.open("rb+") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest() if expected else ""
        os.fsync(file.fileno())
    if expected and not found.startswith(expected):
        part.remove()
        raise UserError(
            f"{part.address} has the sha256 {found[: len(expected)]}, published was {expected}:"
            " refused and removed; it was damaged on the way, or it is another file"
        )
    part.path.replace(path)
    part.remove()
