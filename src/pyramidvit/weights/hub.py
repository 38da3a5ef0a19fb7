"""Repositories on the Hugging Face hub, through its own library and in its own cache.

The library's variables hold: HF_HOME (where the cache lies), HF_HUB_OFFLINE, HF_ENDPOINT (a
mirror), HF_TOKEN (for private and gated repositories).
"""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError, one_line

# Weights as timm and transformers name them, safe ones first.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
DESCRIPTION = ["config.json", "preprocessor_config.json", "README.md"]

log = logging.getLogger(__name__)


def fetch_hub(repo_id: str, revision: str | None = None) -> Path:
    """The folder of a repository with its weights, configuration and model card.

    The hub is asked whether the repository has changed; where it cannot be reached, the cached
    folder is used. Pickled weights (.bin) are fetched only where there are no safetensors.

    Args:
        repo_id: owner/name.
        revision: Branch, tag or commit; None is the main branch.

    Raises:
        UserError: No such repository or revision, no permission, no weights in it, or the hub
            cannot be reached and the repository is not in the cache.
    """
    log.info("looking up %s on the hub", repo_id)
    with errors_in_one_line(repo_id, revision), quiet_unless_watched():
        from huggingface_hub import snapshot_download

        folder = Path(
            snapshot_download(
                repo_id, revision=revision, allow_patterns=[*DESCRIPTION, "*.safetensors"]
            )
        )
        if not any(folder.glob("*.safetensors")):
            patterns = [*DESCRIPTION, "pytorch_model*.bin"]
            folder = Path(snapshot_download(repo_id, revision=revision, allow_patterns=patterns))
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        raise UserError(f"the hub repository {repo_id} holds no weights (.safetensors, .bin)")
    return folder


def cached_hub(repo_id: str) -> Path | None:
    """The folder of a repository's main branch in the cache, if its weights are there."""
    from huggingface_hub import try_to_load_from_cache

    for name in WEIGHTS:
        found = try_to_load_from_cache(repo_id, name)
        if isinstance(found, str):
            return Path(found).parent
    return None


@contextlib.contextmanager
def errors_in_one_line(repo_id: str, revision: str | None) -> Iterator[None]:
    """Turns the library's many exceptions into our one."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{repo_id}"
    by_hand = f"fetch its files from {page} by hand and give their folder"
    try:
        yield
    except errors.HFValidationError as error:
        raise UserError(f"{repo_id} is no id of a hub repository (owner/name)") from error
    except errors.GatedRepoError as error:
        raise UserError(
            f"{repo_id} is gated: accept its terms at {page}, then set HF_TOKEN or run"
            " `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"there is no repository {page}; if it is private, set HF_TOKEN or run `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{page} has no revision {revision}") from error
    except errors.LocalEntryNotFoundError as error:
        why = "HF_HUB_OFFLINE is set"
        if not constants.HF_HUB_OFFLINE:
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
            why = f"the hub gives no answer ({one_line(cause)})"
        raise UserError(f"{repo_id} is not in the cache, and {why}: {by_hand}") from error
    except Exception as error:  # of the library, its HTTP client, its transfer protocol, the disk
        kind = type(error).__name__
        raise UserError(f"cannot fetch {repo_id} ({kind}: {one_line(error)}): {by_hand}") from error


@contextlib.contextmanager
def quiet_unless_watched() -> Iterator[None]:
    """Leaves the library's progress bars to terminals."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    silence = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if silence:
        disable_progress_bars()
    try:
        yield
    finally:
        if silence:
            enable_progress_bars()
