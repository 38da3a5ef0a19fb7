"""Fetching weights from a server on this machine that misbehaves in every way that servers do."""

import hashlib
import logging
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any, cast
from urllib.request import Request

import pytest

from pyramidvit.errors import UserError
from pyramidvit.weights import transfer
from pyramidvit.weights.catalog import find_published
from pyramidvit.weights.download import cached_path, checkpoints_folder, fetch
from pyramidvit.weights.web import Redirects

CONTENT = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(280_000)
TINY = find_published("pvt_tiny")
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Behaviour:
    """What the server does; tests change it while it runs."""

    content: bytes = CONTENT
    etag: str | None = '"one"'
    modified: str | None = None
    kind: str = "application/octet-stream"
    status: int = 200
    ranges: bool = True
    heeds_if_range: bool = True
    cuts: list[int] = field(default_factory=list)  # bytes until the connection ends, a request each
    delay: float = 0.0
    location: str | None = None
    asked: list[tuple[str, str | None, int]] = field(default_factory=list)  # path, Range, status


class Handler(BaseHTTPRequestHandler):
    server: "Server"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        does = self.server.does
        span = self.headers.get("Range")
        status, start = does.status, 0
        current = self.headers.get("If-Range") in (does.etag, does.modified)
        if status == 200 and span and does.ranges and (current or not does.heeds_if_range):
            start = int(span.removeprefix("bytes=").removesuffix("-"))
            status = 206 if start < len(does.content) else 416
        does.asked.append((self.path, span, status))
        self.send_response(status)
        body = does.content[start:] if status in (200, 206) else b"sorry"
        headers = {
            "Content-Type": does.kind,
            "Content-Length": str(len(body)),
            "ETag": does.etag,
            "Last-Modified": does.modified,
            "Location": does.location,
            "Connection": "close",
        }
        if status == 206:
            end = len(does.content)
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{end}"
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        time.sleep(does.delay)
        self.wfile.write(body[: does.cuts.pop(0)] if does.cuts else body)
        self.close_connection = True


class Server(ThreadingHTTPServer):
    does: Behaviour

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that is the mirror, and an empty cache."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with Server(("127.0.0.1", 0), Handler) as running:
        running.does = Behaviour()
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        monkeypatch.setenv("PYRAMIDVIT_MIRROR", running.address)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        monkeypatch.setattr(transfer, "PAUSE", 0.0)
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def does(server: Server) -> Behaviour:
    return server.does


def left_over() -> list[str]:
    """What lies in the cache, but for the lock, which is an empty file."""
    return sorted(p.name for p in checkpoints_folder().iterdir() if not p.name.endswith(".lock"))


def test_a_file_comes_to_where_torch_hub_looks_for_it(does: Behaviour, tmp_path: Path) -> None:
    path = fetch(TINY)
    assert path == tmp_path / "torch" / "hub" / "checkpoints" / "pvt_tiny.pth"
    assert path.read_bytes() == CONTENT
    assert left_over() == ["pvt_tiny.pth"]
    assert does.asked == [("/pvt_tiny.pth", None, 200)]


@pytest.mark.parametrize(
    "variables", [{"TORCH_HOME": "~/here"}, {"XDG_CACHE_HOME": "/caches"}, {}], ids=str
)
def test_the_cache_is_torch_hub_s_by_all_its_variables(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("torch.hub")
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert checkpoints_folder() == Path(hub.get_dir()) / "checkpoints"


def test_a_cached_file_is_used_without_any_network(
    does: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = checkpoints_folder() / "pvt_tiny.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"put there by torch.hub")

    def refuse(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert fetch(TINY) == path
    assert cached_path(TINY) == path
    assert not does.asked


def test_a_cut_connection_is_gone_on_with(does: Behaviour) -> None:
    does.cuts = [100_000, 0, 50_000]
    assert fetch(TINY).read_bytes() == CONTENT
    spans = [span for _, span, _ in does.asked]
    assert spans == [None, "bytes=100000-", "bytes=100000-", "bytes=150000-"]
    assert left_over() == ["pvt_tiny.pth"]


def test_what_came_is_gone_on_with_by_the_next_call(
    does: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "TRIES", 1)
    does.cuts = [120_000]
    with pytest.raises(UserError, match="180000 bytes early, 1 times in a row; what came is kept"):
        fetch(TINY)
    assert cached_path(TINY) is None
    assert left_over() == ["pvt_tiny.pth.part", "pvt_tiny.pth.part.json"]
    assert fetch(TINY).read_bytes() == CONTENT
    assert does.asked[1] == ("/pvt_tiny.pth", "bytes=120000-", 206)
    assert left_over() == ["pvt_tiny.pth"]


def test_a_download_that_crawls_but_moves_is_not_given_up(
    does: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PROGRESS", 10_000)
    does.cuts = [20_000] * 14
    assert fetch(TINY).read_bytes() == CONTENT


@pytest.mark.parametrize("heeds", [True, False], ids=["If-Range heeded", "If-Range ignored"])
def test_a_file_that_changed_on_the_server_is_not_spliced(
    heeds: bool, does: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(transfer, "TRIES", 1)
        does.cuts = [120_000]
        with pytest.raises(UserError):
            fetch(TINY)
    does.content, does.etag, does.heeds_if_range = OTHER, '"two"', heeds
    assert fetch(TINY).read_bytes() == OTHER
    assert [status for _, _, status in does.asked] == ([200, 200] if heeds else [200, 206, 200])


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_bytes_of_an_unknown_version_are_not_gone_on_with(
    etag: str | None, does: Behaviour
) -> None:
    does.etag, does.cuts = etag, [120_000]
    assert fetch(TINY).read_bytes() == CONTENT
    assert [span for _, span, _ in does.asked] == [None, None]


def test_the_date_serves_where_there_is_no_etag(does: Behaviour) -> None:
    does.etag, does.modified = None, "Wed, 21 Oct 2015 07:28:00 GMT"
    does.cuts = [120_000]
    assert fetch(TINY).read_bytes() == CONTENT
    assert does.asked[1][1:] == ("bytes=120000-", 206)


def test_a_part_from_another_server_is_not_gone_on_with(
    does: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(transfer, "TRIES", 1)
        does.cuts = [120_000]
        with pytest.raises(UserError):
            fetch(TINY)
    monkeypatch.setenv("PYRAMIDVIT_MIRROR", os.environ["PYRAMIDVIT_MIRROR"] + "/elsewhere/")
    assert fetch(TINY).read_bytes() == CONTENT
    assert does.asked[1] == ("/elsewhere/pvt_tiny.pth", None, 200)


def test_a_server_without_ranges_sends_it_all_again(does: Behaviour) -> None:
    does.ranges, does.cuts = False, [100_000]
    assert fetch(TINY).read_bytes() == CONTENT
    assert does.asked[1][1:] == ("bytes=100000-", 200)


def test_a_part_that_is_already_whole_is_fetched_anew(does: Behaviour) -> None:
    path = checkpoints_folder() / "pvt_tiny.pth"
    path.parent.mkdir(parents=True)
    part = transfer.Part(
        path=path.with_name("pvt_tiny.pth.part"),
        address=os.environ["PYRAMIDVIT_MIRROR"] + "/pvt_tiny.pth",
    )
    headers = Message()
    headers["ETag"] = '"one"'
    part.start(headers)
    part.path.write_bytes(CONTENT)  # the machine went down just before the last step
    assert fetch(TINY).read_bytes() == CONTENT
    assert [status for _, _, status in does.asked] == [416, 200]


@pytest.mark.parametrize("digits", [8, 64])
def test_the_right_digest_is_accepted_and_a_wrong_one_refused(digits: int, does: Behaviour) -> None:
    published = replace(TINY, sha256=SHA256[:digits])
    does.content = OTHER
    with pytest.raises(UserError, match=f"published was {SHA256[:digits]}: refused and removed"):
        fetch(published)
    assert left_over() == []
    does.content = CONTENT
    assert fetch(published).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "it asks for a login"),
        (403, "it refuses to give the file"),
        (404, r"there is no such file; it was moved or removed \(404 Not Found\)"),
        (418, "the server refuses"),
        (503, "the server answered 503 Service Unavailable, 5 times in a row"),
    ],
)
def test_what_a_server_says_is_explained_in_one_line(
    status: int, words: str, does: Behaviour, server: Server
) -> None:
    does.status = status
    with pytest.raises(UserError, match=words) as caught:
        fetch(TINY)
    assert f"cannot fetch {server.address}/pvt_tiny.pth: " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(does.asked) == (5 if status == 503 else 1)
    assert left_over() == []


def test_a_web_page_is_not_taken_for_weights(does: Behaviour) -> None:
    does.kind = "text/html; charset=utf-8"
    with pytest.raises(UserError, match="gave a web page instead of a file"):
        fetch(TINY)
    assert left_over() == []


def test_without_a_server_the_message_says_what_to_fetch_by_hand_and_where_to_put_it(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def wait(seconds: float) -> None:
        raise AssertionError("it waits for a server that is not there")

    monkeypatch.setattr(transfer.time, "sleep", wait)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PYRAMIDVIT_MIRROR", f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(UserError) as caught:
            fetch(TINY)
    path = tmp_path / "torch" / "hub" / "checkpoints" / "pvt_tiny.pth"
    assert "cannot reach 127.0.0.1:" in str(caught.value)
    assert f"fetch {TINY.address} by hand and put it at {path}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_a_network_the_official_server_is_named(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.delenv("PYRAMIDVIT_MIRROR")
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(UserError, match=r"cannot reach github\.com: its name is not known"):
        fetch(TINY)


def test_a_proxy_of_the_environment_is_used(
    server: Server, does: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYRAMIDVIT_MIRROR", "http://weights.example/pvt")
    monkeypatch.setenv("http_proxy", server.address)
    assert fetch(TINY).read_bytes() == CONTENT
    assert does.asked[0][0] == "http://weights.example/pvt/pvt_tiny.pth"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no always full device")
def test_a_full_disk_is_told_in_one_line(does: Behaviour, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoints_folder() / "pvt_tiny.pth.part"
    opened = Path.open

    def open_full(self: Path, mode: str = "r", *rest: Any, **more: Any) -> IO[Any]:
        return opened(Path("/dev/full") if self == path else self, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(UserError, match=r"cannot write .*\.part: No space left on device"):
        fetch(TINY)
    assert not path.exists()


def test_a_folder_that_cannot_be_made_is_told_in_one_line(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot write .*: Not a directory"):
        fetch(TINY)


def test_processes_that_want_the_same_file_fetch_it_once(does: Behaviour) -> None:
    does.delay = 0.3
    code = (
        "from pyramidvit.weights.catalog import find_published\n"
        "from pyramidvit.weights.download import fetch\n"
        "print(fetch(find_published('pvt_tiny')))"
    )
    racing = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(3)
    ]
    found = {process.communicate(timeout=60)[0].decode().strip() for process in racing}
    assert {process.returncode for process in racing} == {0}
    assert found == {str(checkpoints_folder() / "pvt_tiny.pth")}
    assert Path(found.pop()).read_bytes() == CONTENT
    assert len(does.asked) == 1


def test_only_web_addresses_are_opened(
    server: Server, does: Behaviour, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="is no address of a web server"):
        transfer.transfer("file:///etc/hostname", tmp_path / "stolen")
    for location, words in (
        ("ftp://127.0.0.1/x", "ftp://127.0.0.1/x is no address of a web server"),
        ("file:///etc/hostname", "Redirection to url 'file:///etc/hostname' is not allowed"),
        (f"{server.address}/pvt_tiny.pth", "would lead to an infinite loop"),
    ):
        does.status, does.location = 302, location
        with pytest.raises(UserError, match=re.escape(words)) as caught:
            fetch(TINY)
        assert "\n" not in str(caught.value)
    monkeypatch.setenv("PYRAMIDVIT_MIRROR", "/mnt/weights")
    with pytest.raises(UserError, match="PYRAMIDVIT_MIRROR must begin with http"):
        fetch(TINY)


def test_an_encrypted_address_must_not_lead_to_a_plain_one() -> None:
    request = Request("https://weights.example/a.pth")
    nothing = cast(IO[bytes], None)
    with pytest.raises(UserError, match="not encrypted: refused"):
        Redirects().redirect_request(
            request, nothing, 302, "Found", cast(Any, Message()), "http://weights.example/a.pth"
        )


def test_a_redirection_is_followed_and_resumed_through(
    server: Server, does: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server(("127.0.0.1", 0), Handler) as release:
        release.does = Behaviour(status=302, location=f"{server.address}/signed?key=1")
        threading.Thread(target=release.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("PYRAMIDVIT_MIRROR", release.address)
        does.cuts = [100_000]
        assert fetch(TINY).read_bytes() == CONTENT
        release.shutdown()
    assert does.asked == [
        ("/signed?key=1", None, 200),
        ("/signed?key=1", "bytes=100000-", 206),
    ]


def test_there_is_a_bar_on_a_terminal_and_a_line_in_the_log_elsewhere(
    does: Behaviour,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "pyramidvit"):
        path = fetch(TINY)
    assert capsys.readouterr() == ("", "")
    assert [r.message.split()[0] for r in caplog.records] == ["fetching", "fetched"]
    path.unlink()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    fetch(TINY)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "pvt_tiny.pth" in shown.err


def test_what_lies_on_drive_is_to_be_fetched_by_hand() -> None:
    published = find_published("mask_rcnn_pvt_l_fpn_1x_coco")
    with pytest.raises(UserError) as caught:
        fetch(published)
    assert published.address in str(caught.value)
    assert "in a browser" in str(caught.value)
    assert str(published.note) in str(caught.value)
    assert cached_path(published) is None
