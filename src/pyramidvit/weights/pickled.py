"""Reading other people's `.pth` files without running anything that they ask for.

Two fences stand one behind the other. The file is first scanned, instruction by instruction and
without carrying any out, for the names it would import: a name outside `KNOWN` is refused. Then
torch's restricted reader builds the content, in which the classes of `INERT` become empty shells.
"""

import io
import math
import pickletools
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from ..errors import UserError, one_line


class Inert:
    """Stands for an object whose class we neither need nor run; keeps its attributes."""

    content: Any = None

    def __new__(cls, *_arguments: Any) -> "Inert":
        return super().__new__(cls)

    def __init__(self, *_arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.content = state


# Found in training checkpoints beside the weights: the reference's arguments, numpy's numbers and
# arrays, and the running averages of mmengine (its issue 1655), which keep methods of their class
# and so ask for getattr: it becomes an empty shell like the rest, and nothing is looked up.
INERT = (
    "argparse.Namespace",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "builtins.getattr",
    *(
        f"numpy.{core}.multiarray.{name}"
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    ),
    *(
        f"numpy.{name}"
        for name in ("ndarray", "dtype", "int64", "int32", "float64", "float32", "bool_")
    ),
    *(f"numpy.dtypes.Float{bits}DType" for bits in (16, 32, 64)),
    *(f"numpy.dtypes.{sign}{bits}DType" for sign in ("Int", "UInt") for bits in (8, 16, 32, 64)),
    "numpy.dtypes.BoolDType",
)
# What torch writes for tensors, parameters and plain containers.
PLAIN = (
    "collections.OrderedDict",
    "collections.Counter",  # the milestones of a schedule
    "builtins.set",
    "_codecs.encode",
    "torch.Size",
    "torch.device",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    *(f"torch.{kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16")),
    *(f"torch.{kind}Storage" for kind in ("Long", "Int", "Short", "Char", "Byte", "Bool")),
    *(f"torch.{kind}" for kind in ("float16", "float32", "float64", "bfloat16", "int64", "int32")),
)
KNOWN = {*INERT, *PLAIN}
PROTOCOL_4 = "pickle protocol 4, which torch.save does not use by itself"
LEGACY_PICKLES = 5  # of torch's older format: magic number, protocol, system, content, storages


def read_pickled(path: Path) -> Any:
    """The content of a file that torch.save wrote: containers, tensors, plain values, `Inert`.

    Raises:
        UserError: Damaged, or it asks for a name outside `KNOWN`.
    """
    foreign = sorted(imported_names(path) - KNOWN, key=lambda name: (name == PROTOCOL_4, name))
    if foreign:
        raise UserError(
            f"{path} was refused: it asks for {', '.join(foreign[:3])}; weights are loaded without"
            " running code"
        )
    try:
        with torch.serialization.safe_globals([(Inert, name) for name in INERT]):
            if is_zip(path):  # mapped, no tensor reaches beyond the file, whatever it claims
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            return torch.load(path, map_location=prefilled(path), weights_only=True)
    except Exception as error:  # a damaged file can fail anywhere in the reader
        raise unreadable(path, error) from error


def prefilled(path: Path) -> Callable[[Any, str], Any]:
    """Looks at memory that the older format's reader is about to fill.

    There may not be more of it than the file is long, and what the file then leaves unfilled must
    not be what lay there before: it becomes NaN.
    """
    left = path.stat().st_size

    def look(storage: Any, _place: str) -> Any:  # a torch.UntypedStorage
        nonlocal left
        left -= storage.nbytes()
        if left < 0:
            raise ValueError("it claims more numbers than it holds")
        storage.fill_(255)
        return storage

    return look


def is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def imported_names(path: Path) -> set[str]:
    """Every name that a file would import, found without running any of it.

    Of a damaged file the names before the damage, if there is a foreign one among them.
    """
    names: set[str] = set()
    try:
        with path.open("rb") as file:
            pickles = pickle_in_zip(file) if is_zip(path) else file
            for _ in range(1 if is_zip(path) else LEGACY_PICKLES):
                names.update(names_in_pickle(pickles))
    except UserError as error:
        raise UserError(f"{path} was refused: {error}") from error
    except Exception as error:
        if names <= KNOWN:
            raise unreadable(path, error) from error
    return names


def pickle_in_zip(file: IO[bytes]) -> IO[bytes]:
    """The one pickle inside torch's archive."""
    with zipfile.ZipFile(file) as archive:
        if any("/code/" in name for name in archive.namelist()):
            raise UserError("it is a scripted program of torch.jit: save the model's state dict")
        packed = [e.filename for e in archive.infolist() if e.compress_type != zipfile.ZIP_STORED]
        if packed:  # torch never compresses; a small file could swell until the memory is full
            raise UserError(f"its entry {packed[0]} is compressed")
        names = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if len(names) != 1:
            raise UserError("it is a zip archive, but none that torch.save wrote")
        return io.BytesIO(archive.read(names[0]))


def names_in_pickle(file: IO[bytes]) -> Iterator[str]:
    """The names that one pickle imports; the file is left behind its end."""
    texts: list[str] = []  # those pushed last name what protocol 4 imports
    memo: dict[int, str] = {}
    for instruction, argument, _ in pickletools.genops(file):
        if instruction.name in ("GLOBAL", "INST"):
            module, _, name = str(argument).partition(" ")
            module, name = NAME_MAPPING.get((module, name), (module, name))  # Python 2's names
            yield f"{IMPORT_MAPPING.get(module, module)}.{name}"
        elif instruction.name == "STACK_GLOBAL":
            name = ".".join(texts[-2:])
            yield PROTOCOL_4 if name in KNOWN else name
        elif instruction.name in ("EXT1", "EXT2", "EXT4"):
            yield f"the extension {argument}"
        elif isinstance(argument, str):
            texts = [*texts[-1:], argument]
        elif instruction.name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if argument is None else argument] = texts[-1] if texts else ""
        elif instruction.name in ("BINGET", "LONG_BINGET"):
            texts = [*texts[-1:], memo.get(argument or 0, "")]


def owned_tensors(state: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Copies of tensors that the file truly holds, apart from the file.

    Raises:
        UserError: Something else than plain tensors, more numbers than the file has bytes for, or a
            name that cannot be printed.
    """
    left = 2 * path.stat().st_size  # tied weights stand once in the file and twice in the dict
    owned = {}
    for name, tensor in state.items():
        check_name(name, path)
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise UserError(f"{path}: the state dict's entry {name!r} is not a tensor")
        left -= math.prod(tensor.shape) * tensor.element_size()  # torch's own product can overflow
        if left < 0:
            raise UserError(f"{path}: {name} claims more numbers than the file holds")
        owned[name] = tensor.detach().clone(memory_format=torch.contiguous_format)
    return owned


def check_name(name: str, path: Path) -> None:
    """Refuses a parameter's name that could not stand in a message or on a terminal."""
    if not name.isprintable():
        raise UserError(f"{path}: the name {name[:50]!r} holds characters that cannot be printed")


def unreadable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path} is not a readable checkpoint ({type(error).__name__}: {one_line(error)})"
    )
