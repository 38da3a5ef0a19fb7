"""What all tests share: where optional reference material lies, and no network."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # read by timm and transformers when they are imported
# Read when torch is imported: its threads sleep while they wait, or a machine that is busy with
# something else runs these tests ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # there is a process of tests for each core


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Refuses connections to other machines; processes on this one may talk to each other."""
    connect = socket.socket.connect

    def connect_nearby(self: socket.socket, address: Any) -> None:
        nearby = self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1", "localhost")
        if not nearby:
            raise RuntimeError(f"a test tried to reach {address}: tests use no network")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_nearby)
        yield


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The folder of outputs that were recorded from the reference code."""
    return folder_named_by("PYRAMIDVIT_GOLDEN", "recorded reference outputs")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of small public data sets."""
    return folder_named_by("PYRAMIDVIT_TEST_DATA", "small data sets")


def folder_named_by(variable: str, content: str) -> Path:
    """The folder in an environment variable; unset skips the test, a wrong one fails it."""
    if variable not in os.environ:
        pytest.skip(f"{variable} is not set: it names the folder of {content}")
    folder = Path(os.environ[variable])
    if not folder.is_dir():
        pytest.fail(f"{variable} names {folder}, which is no folder")
    return folder
