"""Pyramid Vision Transformers, PVT v1 and v2: backbones, training, evaluation, prediction.

Names are loaded at first use, so that `import pyramidvit` and `pvt --help` cost no torch import.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .backbones.pvt_v1 import (
        PVTv1Classifier,
        PVTv1Pyramid,
        pvt_large,
        pvt_medium,
        pvt_small,
        pvt_tiny,
    )
    from .backbones.pvt_v2 import (
        PVTv2Classifier,
        PVTv2Pyramid,
        pvt_v2_b0,
        pvt_v2_b1,
        pvt_v2_b2,
        pvt_v2_b2_li,
        pvt_v2_b3,
        pvt_v2_b4,
        pvt_v2_b5,
    )
    from .inference.optimize import optimize
    from .models import create_model, list_heads, list_models
    from .tasks.detection.torchvision_style import TorchvisionDetector
    from .timm_models import register_with_timm
    from .weights.checkpoint import read_checkpoint, save_checkpoint
    from .weights.load import load_weights

__all__ = [
    "PVTv1Classifier",
    "PVTv1Pyramid",
    "PVTv2Classifier",
    "PVTv2Pyramid",
    "TorchvisionDetector",
    "create_model",
    "list_heads",
    "list_models",
    "load_weights",
    "optimize",
    "pvt_large",
    "pvt_medium",
    "pvt_small",
    "pvt_tiny",
    "pvt_v2_b0",
    "pvt_v2_b1",
    "pvt_v2_b2",
    "pvt_v2_b2_li",
    "pvt_v2_b3",
    "pvt_v2_b4",
    "pvt_v2_b5",
    "read_checkpoint",
    "register_with_timm",
    "save_checkpoint",
]

ROOMS = {
    "TorchvisionDetector": "tasks.detection.torchvision_style",
    "create_model": "models",
    "list_heads": "models",
    "list_models": "models",
    "load_weights": "weights.load",
    "optimize": "inference.optimize",
    "read_checkpoint": "weights.checkpoint",
    "register_with_timm": "timm_models",
    "save_checkpoint": "weights.checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    family = f"backbones.pvt_{'v2' if name.startswith(('pvt_v2', 'PVTv2')) else 'v1'}"
    room = importlib.import_module(f".{ROOMS.get(name, family)}", __name__)
    return getattr(room, name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
