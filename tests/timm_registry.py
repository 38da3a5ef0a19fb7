"""timm's registry of models is one for the process: tests change a copy."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from timm.models import _registry

TABLES = [
    name
    for name, table in vars(_registry).items()
    if name.startswith("_") and isinstance(table, dict | set) and "model" in name
]


@contextmanager
def own_registry() -> Iterator[None]:
    """Puts timm's registry back as it was."""
    with pytest.MonkeyPatch.context() as patch:
        for name in TABLES:
            patch.setattr(_registry, name, copy.deepcopy(getattr(_registry, name)))
        yield
