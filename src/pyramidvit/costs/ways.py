"""The ways to run a PVT: a way is a function from a case to a callable that runs it once.

All of them get the same weights, random but large enough for every part to matter, under the names
that each wants, and the same images, so that their outputs can be compared.
"""

import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..export.formats import to_tensors
from ..export.graph import write_out_bins
from ..inference.optimize import RouteName, optimize
from ..models import create_model
from ..weights.convert import renamed, write_transformers
from ..weights.names import TIMM
from ..weights.recognise import find_pvt

Precision = Literal["float32", "bf16"]
Run = Callable[[], Any]
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
PRODUCT = {"cpu": 1536, "cuda": 8192}  # side of the square matrices that tell a device's peak


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What every way has to do.

    Attributes:
        model: A name of `list_models()`.
        features: The four maps instead of logits.
        size: (H, W) of the images.
        batch: Images at a time.
        precision: Of weights and images.
        device: "cpu", "cuda" or "mps".
        official: Folder or file of the reference's classification code.
    """

    model: str
    features: bool = False
    size: tuple[int, int] = (224, 224)
    batch: int = 1
    precision: Precision = "float32"
    device: str = "cpu"
    official: str | None = None


class Way(NamedTuple):
    """How to run a PVT.

    Attributes:
        says: In a few words.
        build: A case to a callable that runs it once.
        packages: What it takes, beside what is always there.
        precisions: What it can compute in.
        lacks: A case to the reason why the way is not for it; "" where it is.
    """

    says: str
    build: Callable[[Case], Run]
    packages: tuple[str, ...] = ()
    precisions: tuple[Precision, ...] = ("float32", "bf16")
    lacks: Callable[[Case], str] = lambda case: ""


def random_network(case: Case) -> nn.Module:
    """Our model, on the CPU in float32, in evaluation mode; always with the same weights."""
    torch.manual_seed(0)
    network = create_model(case.model, features_only=case.features)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return network.eval()


def images_of(case: Case) -> Tensor:
    """[B, 3, H, W]: float32 on the CPU, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(case.batch, 3, *case.size, generator=generator)


def ours(case: Case) -> nn.Module:
    return random_network(case)


def of_timm(case: Case) -> nn.Module:
    import timm

    found = find_pvt(random_network(case).state_dict(), "our model")
    state = renamed(found.state, TIMM.rows)
    if case.features:  # timm flattens the sequence of its stages there
        state = {name.replace("stages.", "stages_", 1): value for name, value in state.items()}
    network: nn.Module = timm.create_model(case.model, features_only=case.features)
    network.load_state_dict(state)
    return network.eval()


def of_transformers(case: Case) -> nn.Module:
    import transformers

    found = find_pvt(random_network(case).state_dict(), "our model")
    with tempfile.TemporaryDirectory() as folder:
        write_transformers(Path(folder), found, None)
        network: nn.Module
        if case.features:
            stages = [f"stage{k}" for k in (1, 2, 3, 4)]
            network = transformers.PvtV2Backbone.from_pretrained(folder, out_features=stages)
        else:
            network = transformers.AutoModelForImageClassification.from_pretrained(folder)
    return network.eval()


def of_official(case: Case) -> nn.Module:
    """The reference's own classifier.

    Raises:
        UserError: It is not at `case.official`, or cannot be loaded.
    """
    path = Path(case.official or "")
    if path.is_dir():
        path = path / ("pvt_v2.py" if case.model.startswith("pvt_v2") else "pvt.py")
    description = importlib.util.spec_from_file_location("official_pvt", path)
    if not path.is_file() or description is None or description.loader is None:
        raise UserError(f"--official must be the reference's classification folder: no {path}")
    module = importlib.util.module_from_spec(description)
    sys.modules["official_pvt"] = module
    description.loader.exec_module(module)
    network: nn.Module = getattr(module, case.model)()
    network.load_state_dict(random_network(case).state_dict())
    return network.eval()


def eager(build: Callable[[Case], nn.Module], *, channels_last: bool = False) -> Any:
    """Runs a network as it is."""

    def start(case: Case) -> Run:
        network, images = placed(build(case), case, channels_last)
        return lambda: network(images)

    return start


def compiled(build: Callable[[Case], nn.Module]) -> Any:
    """Runs a network through torch.compile with its weights frozen."""

    def start(case: Case) -> Run:
        from torch._inductor import config

        config.freezing = True  # this process has but one network
        config.cpp_wrapper = case.device == "cpu"
        network, images = placed(build(case), case, True)
        fast = torch.compile(network, dynamic=False)
        return lambda: fast(images)

    return start


def optimized(route: RouteName) -> Any:
    """Runs what `optimize` makes of our model; images and outputs are float32 in any precision."""

    def start(case: Case) -> Run:
        shape = (case.batch, 3, *case.size)
        network = optimize(ours(case), shape, route=route, precision=case.precision)
        images = images_of(case)
        return lambda: network(images)

    return start


def placed(network: nn.Module, case: Case, channels_last: bool) -> tuple[nn.Module, Tensor]:
    """Network and images on the device, in the precision and layout that are asked for."""
    form = torch.channels_last if channels_last else torch.preserve_format
    to: dict[str, Any] = {"device": case.device, "dtype": DTYPES[case.precision]}
    return network.to(**to, memory_format=form), images_of(case).to(**to, memory_format=form)


def in_onnxruntime(build: Callable[[Case], nn.Module]) -> Any:
    """Runs a network's graph, made for this batch and size, in ONNX Runtime."""

    def start(case: Case) -> Run:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors
        graph = onnx_of(build(case), images_of(case))
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        given = {session.get_inputs()[0].name: images_of(case).numpy()}
        return lambda: session.run(None, given)

    return start


def in_openvino(build: Callable[[Case], nn.Module]) -> Any:
    """Runs the same graph in OpenVINO."""

    def start(case: Case) -> Run:
        import openvino

        settings = {
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bf16": "bf16"}[case.precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        core = openvino.Core()
        model = core.compile_model(
            core.read_model(onnx_of(build(case), images_of(case))), "CPU", settings
        )
        images = images_of(case).numpy()
        return lambda: list(model(images).values())

    return start


def onnx_of(network: nn.Module, images: Tensor) -> bytes:
    """The ONNX graph of a network for images of this shape."""
    made = torch.onnx.export(network, (images,), dynamo=True, verbose=False)
    assert made is not None
    graph: bytes = made.model_proto.SerializeToString()
    return graph


def product(case: Case) -> Run:
    """The product of two square matrices, the most that a device can be asked for."""
    side = product_side(case.device)
    to: dict[str, Any] = {"device": case.device, "dtype": DTYPES[case.precision]}
    a, b = torch.randn(side, side).to(**to), torch.randn(side, side).to(**to)
    return lambda: a @ b


def product_side(device: str) -> int:
    return PRODUCT["cpu" if device == "cpu" else "cuda"]


def as_tensors(result: Any) -> list[Tensor]:
    """Whatever a way returns, as float32 tensors on the CPU."""
    for name in ("logits", "feature_maps"):  # transformers
        result = getattr(result, name, result)
    if isinstance(result, Tensor):
        result = [result]
    if not isinstance(result[0], Tensor):
        result = to_tensors(result)
    return [tensor.detach().float().cpu() for tensor in result]


def no_v1(case: Case) -> str:
    return "" if case.model.startswith("pvt_v2") else "timm has no PVT v1"


def only_classifies(case: Case) -> str:
    return "the official classifiers give no maps" if case.features else ""


def no_v1_maps(case: Case) -> str:
    v1 = not case.model.startswith("pvt_v2")
    return "transformers has no backbone of v1" if case.features and v1 else ""


def no_compiler(case: Case) -> str:
    return "" if shutil.which("g++") or shutil.which("clang++") else "no C++ compiler is here"


def no_v1_nor_compiler(case: Case) -> str:
    return no_v1(case) or no_compiler(case)


def our_graph(case: Case) -> nn.Module:
    return write_out_bins(random_network(case))


GRAPH = ("onnx", "onnxscript")
WAYS = {
    "timm": Way("timm as it is", eager(of_timm), lacks=no_v1),
    "timm-channels-last": Way(
        "timm, channels last", eager(of_timm, channels_last=True), lacks=no_v1
    ),
    "timm-compiled": Way(
        "timm, torch.compile, frozen", compiled(of_timm), lacks=no_v1_nor_compiler
    ),
    "timm-onnxruntime": Way(
        "timm in ONNX Runtime",
        in_onnxruntime(of_timm),
        (*GRAPH, "onnxruntime"),
        ("float32",),
        no_v1,
    ),
    "timm-openvino": Way(
        "timm in OpenVINO", in_openvino(of_timm), (*GRAPH, "openvino"), lacks=no_v1
    ),
    "transformers": Way(
        "transformers as it is", eager(of_transformers), ("transformers",), lacks=no_v1_maps
    ),
    "official": Way("the official code", eager(of_official), lacks=only_classifies),
    "ours": Way("ours as it is", eager(ours)),
    "ours-compiled": Way("ours, torch.compile, frozen", compiled(ours), lacks=no_compiler),
    "ours-onnxruntime": Way(
        "ours in ONNX Runtime", in_onnxruntime(our_graph), (*GRAPH, "onnxruntime"), ("float32",)
    ),
    "ours-openvino": Way("ours in OpenVINO", in_openvino(our_graph), (*GRAPH, "openvino")),
    "optimize-packed": Way("pyramidvit.optimize, packed", optimized("packed")),
    "optimize-compiled": Way(
        "pyramidvit.optimize, compiled", optimized("compiled"), lacks=no_compiler
    ),
    "optimize-openvino": Way("pyramidvit.optimize, OpenVINO", optimized("openvino"), ("openvino",)),
}


def why_not(name: str, case: Case) -> str:
    """Why a way cannot be measured here, or ""."""
    way = WAYS[name]
    if name == "official" and case.official is None:
        return "--official names no code"
    missing = [package for package in way.packages if importlib.util.find_spec(package) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    if case.device != "cpu" and name.startswith("optimize-"):
        return "these routes are for a CPU"
    if case.device != "cpu" and name.endswith(("onnxruntime", "openvino")):
        return "measured on the CPU alone"
    if case.precision not in way.precisions:
        return f"no {case.precision}"
    return way.lacks(case)
