"""The kinds of files: how each is written from a graph, and run again."""

import importlib.util
import io
import json
import logging
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from ..errors import UserError
from ..files import write_atomically
from .graph import MIN_SIDE, Exportable, capture, write_out_bins

INPUT = "images"
RECORD = "pyramidvit.json"  # the metadata in a file of torch.export
Run = Callable[[Tensor], list[Tensor]]  # images [B, 3, H, W] to the outputs in their order
Metadata = Mapping[str, Any]  # for JSON; its "outputs" names the outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A kind of files.

    Attributes:
        suffixes: Of its files; the first is the one that is opened.
        packages: What writing and running it takes, beside torch.
        write: (network, path, metadata) writes the file.
        open: Such a file to a function that runs it.
        min_side: Of the images that it takes, in pixels.
    """

    suffixes: tuple[str, ...]
    packages: tuple[str, ...]
    write: Callable[[Exportable, Path, Metadata], None]
    open: Callable[[Path], Run]
    min_side: int = 32


def write_onnx(network: Exportable, path: Path, metadata: Metadata) -> None:
    """One file, weights inside; the metadata are its metadata_props, JSON where no strings."""
    model = to_onnx(capture(write_out_bins(network)), metadata["outputs"])
    for key, text in as_texts(metadata).items():
        model.metadata_props.add(key=key, value=text)
    write_atomically(path, model.SerializeToString())


def to_onnx(program: ExportedProgram, outputs: Sequence[str]) -> Any:
    """The `onnx.ModelProto` of a graph."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.onnx.export(
            program, (), input_names=[INPUT], output_names=list(outputs), dynamo=True, verbose=False
        )
    assert made is not None
    model = made.model_proto
    name_axes(model.graph)
    return model


def name_axes(graph: Any) -> None:
    """Gives the axes of the images their names, in whatever is said of shapes."""
    axes = graph.input[0].type.tensor_type.shape.dim
    names = {axes[k].dim_param: name for k, name in ((0, "batch"), (2, "height"), (3, "width"))}
    pattern = re.compile(rf"\b({'|'.join(names)})\b")
    for value in (*graph.input, *graph.output, *graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_param = pattern.sub(lambda match: names[match[0]], axis.dim_param)


def open_onnx(path: Path) -> Run:
    """Runs an ONNX file in onnxruntime, with torch's number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: to_tensors(session.run(None, {INPUT: images.numpy()}))


def write_openvino(network: Exportable, path: Path, metadata: Metadata) -> None:
    """Two files, .xml and .bin, in float32; the metadata are runtime information "pyramidvit"."""
    import openvino

    model = to_onnx(capture(write_out_bins(network)), metadata["outputs"])
    model = openvino.Core().read_model(model.SerializeToString())
    for key, text in as_texts(metadata).items():
        model.set_rt_info(text, ["pyramidvit", key])
    openvino.save_model(model, path, compress_to_fp16=False)


def open_openvino(path: Path) -> Run:
    """Runs an OpenVINO file on the CPU in float32, with torch's number of threads."""
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "f32",  # it would take bfloat16 where the processor has it
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    model = openvino.Core().compile_model(path, "CPU", settings)
    return lambda images: to_tensors(list(model(images.numpy()).values()))


def write_program(network: Exportable, path: Path, metadata: Metadata) -> None:
    """A file of torch.export; the metadata are the extra file "pyramidvit.json" in it."""
    buffer = io.BytesIO()
    torch.export.save(capture(network), buffer, extra_files={RECORD: json.dumps(dict(metadata))})
    write_atomically(path, buffer.getvalue())


def open_program(path: Path) -> Run:
    """Runs a file of torch.export."""
    module = torch.export.load(path).module()
    return lambda images: list(module(images))


FORMATS = {
    "onnx": Format(
        suffixes=(".onnx",),
        packages=("onnx", "onnxscript", "onnxruntime"),
        write=write_onnx,
        open=open_onnx,
    ),
    "openvino": Format(
        suffixes=(".xml", ".bin"),
        packages=("onnx", "onnxscript", "openvino"),  # the way to it leads through ONNX
        write=write_openvino,
        open=open_openvino,
    ),
    "torch-export": Format(
        suffixes=(".pt2",),
        packages=(),
        write=write_program,
        open=open_program,
        min_side=MIN_SIDE,
    ),
}


def check_packages(name: str) -> None:
    """Refuses a format that lacks something on this machine.

    Raises:
        UserError: Naming what is missing, and how to get it.
    """
    missing = [p for p in FORMATS[name].packages if importlib.util.find_spec(p) is None]
    if missing:
        raise UserError(f"--to {name} needs {', '.join(missing)}: pip install 'pyramidvit[export]'")


def as_texts(metadata: Metadata) -> dict[str, str]:
    """The metadata as strings; what is none is written as JSON."""
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}


def to_tensors(arrays: Sequence[np.ndarray]) -> list[Tensor]:
    return [torch.from_numpy(np.array(array)) for array in arrays]
