"""From what a user types to weights in a model, by way of a server on this machine."""

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import rule
from pyramidvit import create_model
from pyramidvit.errors import UserError
from pyramidvit.weights.places import find_weights


class Files(http.server.SimpleHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012 - one server at a time

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        self.asked.append(self.path)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that a server gives away, and an empty cache."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    folder = tmp_path / "mirror"
    folder.mkdir()
    Files.asked = []
    handler = functools.partial(Files, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("PYRAMIDVIT_MIRROR", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        yield folder
        server.shutdown()


def test_pretrained_true_fetches_the_official_file_once(
    mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = rule.build("pvt_tiny", features_only=True).state_dict()
    torch.save(state, mirror / "pvt_tiny.pth")
    for place in (True, "pvt_tiny"):
        model = create_model("pvt_tiny", features_only=True, pretrained=place)
        for name, value in model.state_dict().items():
            assert torch.equal(value, state[name])
    assert len(Files.asked) == 1
    assert "/pvt_tiny.pth" in Files.asked[0]

    (mirror / "pvt_tiny.pth").unlink()
    monkeypatch.setenv("PYRAMIDVIT_MIRROR", "http://127.0.0.1:9")  # nobody listens there
    create_model("pvt_tiny", features_only=True, pretrained=True)  # from the cache


def test_a_file_with_another_digest_than_the_published_one_is_refused(mirror: Path) -> None:
    torch.save(rule.build("pvt_v2_b0").state_dict(), mirror / "pvt_v2_b0.pth")
    with pytest.raises(UserError, match="sha256"):
        create_model("pvt_v2_b0", pretrained=True)
    with pytest.raises(UserError, match="sha256"):
        find_weights("pvt_v2_b0")  # no trace is left that could be taken for it


@pytest.mark.usefixtures("mirror")
def test_a_file_that_the_server_lacks_is_explained() -> None:
    with pytest.raises(UserError, match=r"404.*pvt_v2_b3\.pth|pvt_v2_b3\.pth.*404"):
        create_model("pvt_v2_b3", pretrained=True, features_only=True)


@pytest.mark.usefixtures("mirror")
def test_without_a_network_the_user_is_told_what_to_fetch_and_where_to_put_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYRAMIDVIT_MIRROR", "http://127.0.0.1:9")
    with pytest.raises(UserError) as caught:
        create_model("pvt_tiny", pretrained=True)
    message = str(caught.value)
    assert "pvt_tiny.pth" in message
    assert str(tmp_path / "torch") in message
    assert "\n" not in message


def test_what_lies_on_the_disk_goes_before_a_published_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pvt_v2_b0").mkdir()
    assert find_weights("pvt_v2_b0") == Path("pvt_v2_b0")


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("pvt_v2_b0.pth", "no such checkpoint: pvt_v2_b0.pth; pvt_v2_b0 without an ending"),
        ("runs/best.safetensors", "no such checkpoint: runs/best.safetensors"),
        ("pvt_v2_b7", "nearest published: pvt_v2_b"),
        ("http://example.org/a.pth", "download the file first"),
        (False, "got False"),
    ],
)
def test_what_is_not_there_is_told_so(typed: str | bool, told: str) -> None:
    with pytest.raises(UserError, match=told.replace(".", r"\.")):
        find_weights(typed)
