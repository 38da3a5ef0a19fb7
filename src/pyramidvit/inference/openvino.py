"""OpenVINO, where it is installed: a graph for one shape of images, on the CPU."""

import importlib.util

import torch
from torch import Tensor

from ..backbones.classifier import Classifier
from ..backbones.trunk import Trunk
from ..errors import UserError
from .trunk import Outputs, Run, Shape, check_device

PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}


def check(trunk: Trunk) -> None:
    """Refuses where the route cannot be taken.

    Raises:
        UserError: Saying why.
    """
    check_device(trunk, "openvino")
    if importlib.util.find_spec("openvino") is None:
        raise UserError("route openvino: openvino is not installed; pip install openvino")


def prepare(trunk: Trunk, shape: Shape, dtype: torch.dtype) -> Run:
    """What runs a trunk in evaluation mode on images of a shape, with torch's number of threads."""
    import openvino

    program = torch.export.export(trunk, (torch.zeros(shape),), strict=False)
    model = openvino.convert_model(program)
    model.reshape(list(shape))
    settings = {
        "INFERENCE_PRECISION_HINT": PRECISIONS[dtype],  # it would choose by the processor
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    single = isinstance(trunk, Classifier)

    def run(images: Tensor) -> Outputs:
        found = request.infer({0: images.contiguous().numpy()}, share_inputs=True)
        outputs = [torch.from_numpy(array) for array in found.to_tuple()]
        return outputs[0] if single else outputs

    return run
