"""The models by torch.hub, from a checkout without the package installed."""

import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path

import torch

from pyramidvit import create_model, list_models

ROOT = Path(__file__).parents[1]

LOAD = """
import sys, torch
sys.path = [place for place in sys.path if not place.endswith("src")]  # an editable installation
repository, weights = sys.argv[1:]
for name, options in (("pvt_tiny", {"features_only": True}), ("pvt_v2_b0", {"num_classes": 3})):
    pretrained = weights if name == "pvt_v2_b0" else False
    model = torch.hub.load(repository, name, source="local", pretrained=pretrained, **options)
    assert type(model).__module__.startswith("pyramidvit"), type(model)
assert sys.modules["pyramidvit"].__file__.startswith(repository)
print(model.head.bias.tolist())
"""


def test_torch_hub_loads_from_a_checkout(tmp_path: Path) -> None:
    model = create_model("pvt_v2_b0", num_classes=3)
    torch.nn.init.constant_(model.head.bias, 0.5)
    model.save_pretrained(tmp_path)
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for part in ("hubconf.py", "src"):
        (checkout / part).symlink_to(ROOT / part)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(checkout), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[0.5, 0.5, 0.5]\n"


def test_every_model_is_listed_and_described() -> None:
    spec = importlib.util.spec_from_file_location("hubconf", ROOT / "hubconf.py")
    hubconf = importlib.util.module_from_spec(spec)
    path = sys.path.copy()
    spec.loader.exec_module(hubconf)
    sys.path[:] = path
    listed = {  # what torch.hub.list shows
        name
        for name, value in vars(hubconf).items()
        if callable(value) and not name.startswith("_")
    }
    assert listed == set(list_models())
    for name in listed:
        with torch.device("meta"):
            model = getattr(hubconf, name)()
        millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        assert f"{millions:.1f} M parameters" in inspect.getdoc(getattr(hubconf, name))
    assert all(importlib.util.find_spec(name) for name in hubconf.dependencies)
