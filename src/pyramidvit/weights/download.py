"""Published weights on this machine: from the cache, else fetched.

Files lie where `torch.hub` keeps its checkpoints, so what it or timm fetched before is found; hub
repositories lie in the Hugging Face cache. PYRAMIDVIT_MIRROR may name a server of one's own that
has the files (not the repositories) under their names.
"""

import hashlib
import os
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock

from ..errors import UserError
from .catalog import Published
from .hub import WEIGHTS, cached_hub, fetch_hub
from .transfer import transfer
from .web import UnreachableError

__all__ = ["cached_path", "checkpoints_folder", "fetch", "fetch_hub"]

MIRROR = "PYRAMIDVIT_MIRROR"


def fetch(published: Published) -> Path:
    """A file of the catalog, or the folder of a repository; from the cache without any network.

    A known digest is checked when the file is fetched, not at each use: the check guards against
    a wrong or damaged transfer, what lies in the cache afterwards is as safe as every other file
    of the user, and reading it twice would double the time that loading takes.

    Raises:
        UserError: It cannot be fetched; the message says what to fetch by hand, and where it goes.
    """
    cached = cached_path(published)
    if cached is not None:
        return cached
    if published.place == "drive":
        raise UserError(drive_message(published))
    if published.place == "hub":
        folder = fetch_hub(published.address)
        check_hub(published, folder)
        return folder
    assert published.file is not None
    return fetch_file(published, checkpoints_folder() / published.file)


def cached_path(published: Published) -> Path | None:
    """Where a file, or a repository's folder, already lies on this machine; no network is used.

    A repository counts as soon as its weights are there, whoever fetched them.
    """
    if published.place == "hub":
        return cached_hub(published.address)
    if published.file is None:
        return None
    path = checkpoints_folder() / published.file
    return path if path.is_file() else None


def checkpoints_folder() -> Path:
    """The folder of `torch.hub`'s checkpoints, by its rule and without importing it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    home = Path(os.environ.get("TORCH_HOME", cache / "torch"))
    return home.expanduser() / "hub" / "checkpoints"


def fetch_file(published: Published, path: Path) -> Path:
    """Fetches a file into the cache; of several processes one does, and the others wait for it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            if not path.is_file():
                transfer(mirrored(published.address), path, sha256=published.sha256)
    except UnreachableError as error:
        host = urlsplit(mirrored(published.address)).netloc
        raise UserError(
            f"cannot reach {host}: {error}; fetch {published.address} by hand and put it at {path}"
        ) from error
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def mirrored(address: str) -> str:
    """The address on the mirror, if one is set."""
    mirror = os.environ.get(MIRROR)
    if not mirror:
        return address
    if urlsplit(mirror).scheme not in ("http", "https"):
        raise UserError(f"{MIRROR} must begin with http:// or https://, got {mirror}")
    return f"{mirror.rstrip('/')}/{address.rsplit('/', 1)[1]}"


def check_hub(published: Published, folder: Path) -> None:
    """Refuses a repository just fetched whose weights are not those that the catalog knows.

    Raises:
        UserError: Another digest; the file is removed from the cache.
    """
    path = folder / WEIGHTS[0]
    if published.sha256 is None or not path.is_file():
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(published.sha256):
        path.resolve().unlink()  # the cache holds the file elsewhere, and a link here
        path.unlink(missing_ok=True)
        raise UserError(
            f"{published.address}: {path.name} has the sha256 {found}, published was"
            f" {published.sha256}: refused and removed; it was damaged on the way, or replaced"
        )


def drive_message(published: Published) -> str:
    note = f" ({published.note})" if published.note else ""
    return (
        f"{published.name} lies on Google Drive, which gives files to people only: open"
        f" {published.address} in a browser{note}, and give the path of what you saved"
    )
