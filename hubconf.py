"""The models by torch.hub: `torch.hub.load(REPOSITORY, "pvt_v2_b0", pretrained=...)`.

A plain checkout is enough; the package need not be installed, only what `dependencies` names.
Options of every model: `pretrained` (False, True, or a file, folder or hub id), and those of
`pyramidvit.create_model`: num_classes, in_chans, drop_path_rate, features_only, out_indices.
"""

import sys as _sys
from pathlib import Path as _Path

_sys.path.insert(0, str(_Path(__file__).parent / "src"))

from pyramidvit.models import create_model as _create_model

dependencies = ["torch", "torchvision", "numpy", "safetensors", "huggingface_hub", "filelock"]


def _build(name, pretrained, options):
    return _create_model(name, pretrained=pretrained or None, **options)


def pvt_tiny(pretrained=False, **options):
    """PVT-Tiny, 13.2 M parameters: an image classifier, or with features_only a backbone."""
    return _build("pvt_tiny", pretrained, options)


def pvt_small(pretrained=False, **options):
    """PVT-Small, 24.5 M parameters: an image classifier, or with features_only a backbone."""
    return _build("pvt_small", pretrained, options)


def pvt_medium(pretrained=False, **options):
    """PVT-Medium, 44.2 M parameters: an image classifier, or with features_only a backbone."""
    return _build("pvt_medium", pretrained, options)


def pvt_large(pretrained=False, **options):
    """PVT-Large, 61.4 M parameters: an image classifier, or with features_only a backbone."""
    return _build("pvt_large", pretrained, options)


def pvt_v2_b0(pretrained=False, **options):
    """PVTv2-B0, 3.7 M parameters: an image classifier, or with features_only a backbone."""
    return _build("pvt_v2_b0", pretrained, options)


def pvt_v2_b1(pretrained=False, **options):
    """PVTv2-B1, 14.0 M parameters: an image classifier, or with features_only a backbone."""
    return _build("pvt_v2_b1", pretrained, options)


def pvt_v2_b2(pretrained=False, **options):
    """PVTv2-B2, 25.4 M parameters: an image classifier, or with features_only a backbone."""
    return _build("pvt_v2_b2", pretrained, options)


def pvt_v2_b2_li(pretrained=False, **options):
    """PVTv2-B2-Li, 22.6 M parameters: an image classifier, or with features_only a backbone."""
    return _build("pvt_v2_b2_li", pretrained, options)


def pvt_v2_b3(pretrained=False, **options):
    """PVTv2-B3, 45.2 M parameters: an image classifier, or with features_only a backbone."""
    return _build("pvt_v2_b3", pretrained, options)


def pvt_v2_b4(pretrained=False, **options):
    """PVTv2-B4, 62.6 M parameters: an image classifier, or with features_only a backbone."""
    return _build("pvt_v2_b4", pretrained, options)


def pvt_v2_b5(pretrained=False, **options):
    """PVTv2-B5, 82.0 M parameters: an image classifier, or with features_only a backbone."""
    return _build("pvt_v2_b5", pretrained, options)
