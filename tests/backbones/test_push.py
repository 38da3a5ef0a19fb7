"""Sharing a model, against a stand-in for the hub."""

import os
import subprocess
import sys
from pathlib import Path

from hub_server import local_hub

PUSH = """
import sys, torch
from dataclasses import replace
from pyramidvit import PVTv2Classifier
from pyramidvit.errors import UserError

torch.manual_seed(0)
size = replace(PVTv2Classifier.sizes["pvt_v2_b0"], depths=(1, 1, 1, 1))
model = PVTv2Classifier(size, num_classes=3)
model.class_names = ("cat", "dog", "Käfer")
card = {"license": "mit", "repo_id": "me/beetles"}
model.save_pretrained(sys.argv[1], model_card_kwargs=card)
try:
    model.push_to_hub("me/beetles", token="hf_wrong")
except UserError as error:
    print(error)
print(model.push_to_hub("me/beetles", token="hf_right", model_card_kwargs=card))

again = PVTv2Classifier.from_pretrained("me/beetles")
assert again.class_names == model.class_names
pairs = zip(again.state_dict().values(), model.state_dict().values(), strict=True)
assert all(torch.equal(a, b) for a, b in pairs)
try:
    PVTv2Classifier.from_pretrained("me/birds")
except UserError as error:
    print(error)
"""


def test_a_pushed_model_arrives_byte_for_byte_and_loads_by_its_id(tmp_path: Path) -> None:
    """In a process of its own: the library reads the hub's address when it is imported."""
    saved = tmp_path / "saved"
    with local_hub() as hub:
        changed = {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(tmp_path / "home"),
        }
        done = subprocess.run(
            [sys.executable, "-c", PUSH, str(saved)],
            env={**os.environ, **changed},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    wanted = {path.name: path.read_bytes() for path in saved.iterdir()}
    assert set(wanted) == {"config.json", "model.safetensors", "README.md"}
    assert hub.repositories["me/beetles"] == wanted
    assert "POST /me/beetles.git/info/lfs/objects/batch" in hub.requests

    refused, address, missing = done.stdout.splitlines()
    assert refused.startswith("cannot push to me/beetles (")
    assert refused.endswith("HF_TOKEN gives the right to write")
    assert address.startswith(f"{hub.url}/me/beetles/commit/")
    assert missing.startswith(f"there is no repository {hub.url}/me/birds")
