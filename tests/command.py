"""The command as a user runs it: in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def pvt_process(*words: str, **options: Any) -> "subprocess.Popen[str]":
    """Starts `pvt` in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "pyramidvit", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )
