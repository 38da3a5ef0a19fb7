"""Run folders: made once, never written over."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning_fabric import Fabric

from .. import __version__
from ..errors import UserError
from ..files import write_atomically

PACKAGES = ("torch", "torchvision", "timm", "lightning-fabric", "numpy", "pillow", "safetensors")


def check_output(wanted: str | None) -> None:
    """Refuses a folder that was asked for and has something in it.

    Raises:
        UserError: Naming the folder.
    """
    folder = Path(wanted or ".")
    if wanted is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "exists and is not empty" if folder.is_dir() else "is a file"
        raise UserError(f"{folder} {what}; name another --output (train: or --resume that run)")


def make_folder(wanted: str | None, parent: str, stem: str) -> Path:
    """Creates the folder that was asked for, or parent/stem-1, parent/stem-2, and so on.

    Raises:
        UserError: The wanted folder exists and is not empty, or cannot be made.
    """
    try:
        if wanted is not None:
            check_output(wanted)
            folder = Path(wanted)
            folder.mkdir(parents=True, exist_ok=True)
            return folder
        Path(parent).mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            folder = Path(parent, f"{stem}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                number += 1
            else:
                return folder
    except OSError as error:
        raise UserError(f"cannot make the folder {wanted or parent}: {error.strerror}") from error


def make_shared_folder(fabric: Fabric, wanted: str | None, parent: str, stem: str) -> Path:
    """`make_folder` by the first process; all learn the folder, or raise its error."""
    folder, error = "", ""
    if fabric.is_global_zero:
        try:
            folder = str(make_folder(wanted, parent, stem))
        except UserError as refused:
            error = str(refused)
    folder, error = fabric.broadcast((folder, error))
    if error:
        raise UserError(error)
    return Path(folder)


def write_args(folder: Path, options: Mapping[str, Any]) -> None:
    """Writes the resolved options as `args.yaml`."""
    write_atomically(folder / "args.yaml", yaml.safe_dump(dict(options), sort_keys=False))


def write_environment(folder: Path, device: str) -> None:
    """Writes what the run stood on as `environment.json`."""
    record = {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": sys.argv,
        "pyramidvit": __version__,
        "git": git_state(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "device": device,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    write_atomically(folder / "environment.json", json.dumps(record, indent=2) + "\n")


def package_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def git_state() -> str | None:
    """Commit of the folder one works in, with "+changes" where it has any; None outside git."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+changes", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None
