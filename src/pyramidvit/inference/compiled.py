"""torch's compiler ahead of time: a library for one shape of images, weights packed inside.

It takes a C++ compiler and about a minute, so its work is kept in the user's cache. It runs without
Python and never compiles anew: other shapes go another way.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..backbones.trunk import Trunk
from ..errors import UserError
from .packed import share
from .trunk import Outputs, Run, Shape, check_device


def check(trunk: Trunk) -> None:
    """Refuses where the route cannot be taken.

    Raises:
        UserError: Saying why.
    """
    check_device(trunk, "compiled")
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        raise UserError("route compiled: no C++ compiler is here; install g++, or name one in CXX")


def prepare(trunk: Trunk, shape: Shape, dtype: torch.dtype) -> Run:
    """What runs a trunk in evaluation mode on images of a shape."""
    library = cache_folder() / f"{fingerprint(trunk, shape, dtype)}.pt2"
    if not library.is_file():
        compile_into(library, share(trunk, dtype), torch.zeros(shape, dtype=dtype))
    compiled: Any = torch._inductor.aoti_load_package(str(library))

    def run(images: Tensor) -> Outputs:
        outputs: Outputs = compiled(images.to(dtype))
        return outputs

    return run


def compile_into(library: Path, trunk: Trunk, images: Tensor) -> None:
    """Writes the library of a trunk, beside its place first."""
    with torch.no_grad():
        program = torch.export.export(trunk, (images,), strict=False)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            written = torch._inductor.aoti_compile_and_package(
                program,
                package_path=f"{folder}/library.pt2",
                inductor_configs={"freezing": True},
            )
            Path(written).replace(library)


def cache_folder() -> Path:
    """Where libraries are kept; made where it is missing."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    folder = cache / "pyramidvit" / "compiled"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fingerprint(trunk: Trunk, shape: Shape, dtype: torch.dtype) -> str:
    """A name for all that a library depends on."""
    capability = torch.backends.cpu.get_cpu_capability()
    facts = (__version__, torch.__version__, capability, torch.get_num_threads(), shape, dtype)
    digest = hashlib.sha256(repr((facts, type(trunk), trunk)).encode())
    for name, tensor in trunk.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy())
    return digest.hexdigest()[:32]
