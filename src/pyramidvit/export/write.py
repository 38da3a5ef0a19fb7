"""Writing an export: compared with the network first, and handed over whole or not at all."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import UserError
from .formats import FORMATS, Format, Metadata
from .graph import Exportable

SIZES = ((224, 224), (97, 131))  # (H, W) at which a file is compared, beside the smallest
BATCHES = (1, 2)
TOLERANCE = 1e-4  # of the largest value of an output


def write(
    network: Exportable,
    output: Path,
    to: str,
    metadata: Metadata,
    step: Callable[[str], None] = lambda _: None,
) -> float:
    """Writes a network as one of `FORMATS`.

    Args:
        network: In evaluation mode, on the CPU.
        output: The file; with "openvino" the .xml, beside which the .bin will lie.
        to: A name of `FORMATS`.
        metadata: What the file shall say of itself; its "outputs" names the outputs.
        step: Called after writing, and after each size that was compared.

    Returns:
        The largest difference found, as a share of the largest value of its output.

    Raises:
        UserError: The file gives other outputs than the network, or cannot be written; then there
            is none.
    """
    folder = output.with_name(f".partial-{output.name}")  # beside it: moving is then one step
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
        written = folder / output.name
        FORMATS[to].write(network, written, metadata)
        step("written")
        found = compare(network, written, FORMATS[to], metadata["outputs"], step)
        for suffix in reversed(FORMATS[to].suffixes):  # the one that is opened comes last
            written.with_suffix(suffix).replace(output.with_suffix(suffix))
    except UserError as error:  # it should name the place that was asked for
        raise UserError(str(error).replace(str(folder), str(output.parent))) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return found


@torch.no_grad()
def compare(
    network: Exportable,
    path: Path,
    form: Format,
    outputs: Sequence[str],
    step: Callable[[str], None] = lambda _: None,
) -> float:
    """The largest difference between a file and its network, as a share of the largest value.

    Raises:
        UserError: It is more than TOLERANCE, or not finite.
    """
    run = form.open(path)
    generator = torch.Generator().manual_seed(0)
    most = 0.0
    for height, width in sizes_of(form):
        for batch in BATCHES:
            images = torch.rand(batch, 3, height, width, generator=generator)
            pairs = zip(outputs, run(images), network(images), strict=True)
            for name, found, expected in pairs:
                share = difference(found, expected)
                if not share <= TOLERANCE:
                    raise UserError(
                        f"the exported file is wrong: its {name} for images of {batch} x 3 x"
                        f" {height} x {width} differ from the model's by {share:.1g} of the largest"
                        " value; nothing was written"
                    )
                most = max(most, share)
        step(f"{height} x {width}")
    return most


def sizes_of(form: Format) -> tuple[tuple[int, int], ...]:
    """The sizes (H, W) at which a file is compared."""
    return (*SIZES, (form.min_side, 2 * form.min_side))


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference as a share of the largest value; infinite where shapes differ."""
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max())
