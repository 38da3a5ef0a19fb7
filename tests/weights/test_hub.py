"""Hub repositories, from a server that speaks the hub's language for a handful of repositories.

The hub's library reads its variables when it is imported, so each test runs a process of its own.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from pyramidvit.weights import rows

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SAFE = {"config.json": b"{}", "README.md": b"card", "model.safetensors": b"safe weights"}
REPOSITORIES = {
    "someone/pvt": {**SAFE, "pytorch_model.bin": b"pickled", "optimizer.bin": b"x", "a.h5": b"x"},
    "someone/old": {"config.json": b"{}", "pytorch_model.bin": b"pickled"},
    "someone/empty": {"README.md": b"nothing here"},
    "OpenGVLab/pvt_v2_b0": SAFE,
}
REFUSED = {
    "someone/gone": (404, "RepoNotFound"),
    "someone/gated": (403, "GatedRepo"),
    "someone/broken": (500, "Oops"),
}


class Hub(BaseHTTPRequestHandler):
    server: "HubServer"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        in_api = parts[:2] == ["api", "models"]
        owner, name, *rest = parts[2:] if in_api else parts
        repository = f"{owner}/{name}"
        self.server.asked.append(f"{self.command} {self.path}")
        if repository in REFUSED:
            code, kind = REFUSED[repository]
            self.answer(b"{}", code, {"X-Error-Code": kind})
            return
        files = REPOSITORIES[repository]
        if in_api and rest[:1] == ["tree"]:
            listed = [
                {"type": "file", "path": path, "size": len(content), "oid": digest(content)}
                for path, content in files.items()
            ]
            self.answer(json.dumps(listed).encode())
        elif in_api and rest[1:] not in ([], ["main"], [COMMIT]):
            self.answer(b"{}", 404, {"X-Error-Code": "RevisionNotFound"})
        elif in_api:
            siblings = [{"rfilename": path} for path in files]
            self.answer(
                json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode()
            )
        else:
            content = files["/".join(rest[2:])]
            self.answer(content, 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{digest(content)}"'})

    def answer(self, body: bytes, code: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


class HubServer(ThreadingHTTPServer):
    asked: list[str]


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer(("127.0.0.1", 0), Hub) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def ask(code: str, home: Path, hub: HubServer | None, **variables: str) -> list[str]:
    """What each expression gives or refuses, one a line, in a process with its own cache."""
    endpoint = "http://127.0.0.1:9" if hub is None else f"http://127.0.0.1:{hub.server_port}"
    environment = {
        **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
        "HF_HOME": str(home),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        **variables,
    }
    program = (
        "from dataclasses import replace\n"
        "from pyramidvit.errors import UserError\n"
        "from pyramidvit.weights.catalog import find_published\n"
        "from pyramidvit.weights.download import cached_path, fetch, fetch_hub\n"
        "B0 = find_published('OpenGVLab/pvt_v2_b0')\n"
        "def tell(act):\n"
        "    try:\n"
        "        print(act())\n"
        "    except UserError as error:\n"
        "        print('refused:', ascii(str(error)))\n" + code
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "it/s" not in done.stderr  # progress bars are for terminals
    return done.stdout.splitlines()


def names(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def test_safe_weights_are_fetched_and_pickles_only_where_there_is_nothing_else(
    hub: HubServer, tmp_path: Path
) -> None:
    code = "tell(lambda: fetch_hub('someone/pvt'))\ntell(lambda: fetch_hub('someone/old'))"
    safe, old = ask(code, tmp_path, hub)
    assert names(safe) == {"config.json", "README.md", "model.safetensors"}
    assert (Path(safe) / "model.safetensors").read_bytes() == b"safe weights"
    assert names(old) == {"config.json", "pytorch_model.bin"}
    assert Path(safe).is_relative_to(tmp_path)  # HF_HOME


def test_each_mistake_is_answered_in_one_line(hub: HubServer, tmp_path: Path) -> None:
    code = "\n".join(
        f"tell(lambda: fetch_hub({words}))"
        for words in (
            "'someone/gone'",
            "'someone/gated'",
            "'someone/pvt', 'no-such-branch'",
            "'not an id/at all/'",
            "'someone/empty'",
            "'someone/broken'",
        )
    )
    said = ask(code, tmp_path, hub)
    gone, gated, revision, malformed, empty, broken = said
    assert "there is no repository http://127.0.0.1" in gone
    assert "someone/gone; if it is private, set HF_TOKEN" in gone
    assert "someone/gated is gated: accept its terms at http" in gated
    assert "someone/pvt has no revision no-such-branch" in revision
    assert "is no id of a hub repository (owner/name)" in malformed
    assert "someone/empty holds no weights" in empty
    assert "the hub gives no answer (" in broken
    assert "500" in broken
    assert not any(r"\n" in line for line in said)


def test_what_is_cached_is_found_offline_and_what_is_not_is_told(
    hub: HubServer, tmp_path: Path
) -> None:
    (fetched,) = ask("tell(lambda: fetch_hub('someone/pvt'))", tmp_path, hub)
    code = "tell(lambda: fetch_hub('someone/pvt'))\ntell(lambda: fetch_hub('someone/other'))"
    found, missing = ask(code, tmp_path, hub, HF_HUB_OFFLINE="1")
    assert found == fetched
    assert (
        "someone/other is not in the cache, and HF_HUB_OFFLINE is set: fetch its files" in missing
    )
    found, missing = ask(code, tmp_path, None)
    assert found == fetched
    assert "someone/other is not in the cache, and the hub gives no answer (" in missing
    assert "http://127.0.0.1:9/someone/other by hand and give their folder" in missing


def test_a_catalogued_repository_is_checked_when_fetched_and_then_asked_for_no_more(
    hub: HubServer, tmp_path: Path
) -> None:
    code = (
        "tell(lambda: cached_path(B0))\n"
        "tell(lambda: fetch(B0))\n"  # the server's weights are not those of the catalog
        "tell(lambda: cached_path(B0))\n"
    )
    before, refused, after = ask(code, tmp_path, hub)
    assert before == after == "None"
    assert f"published was {rows.DIGESTS['OpenGVLab/pvt_v2_b0']}: refused and removed" in refused
    assert b"safe weights" not in [p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()]
    right = hashlib.sha256(b"safe weights").hexdigest()
    (fetched,) = ask(f"tell(lambda: fetch(replace(B0, sha256={right!r})))", tmp_path, hub)
    assert (Path(fetched) / "model.safetensors").read_bytes() == b"safe weights"
    hub.asked.clear()
    (again,) = ask("tell(lambda: fetch(B0))", tmp_path, hub)
    assert again == fetched
    assert not hub.asked


def test_weights_that_another_library_cached_are_found(hub: HubServer, tmp_path: Path) -> None:
    code = (
        "from huggingface_hub import hf_hub_download\n"
        "hf_hub_download('OpenGVLab/pvt_v2_b0', 'model.safetensors')\n"
        "tell(lambda: fetch(B0))\n"
    )
    (found,) = ask(code, tmp_path, hub)
    assert names(found) == {"model.safetensors"}
