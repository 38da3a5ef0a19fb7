"""A stand-in for the Hugging Face hub on this machine: as much of it as pushing and loading take.

Small files come inside the commit, weights by the large-file protocol, as on the real one.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.large: dict[str, bytes] = {}  # by sha256
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.requests: list[str] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *args: Any) -> None:
        """Says nothing."""

    def reply(self, content: Any, status: int = 200, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def do_POST(self) -> None:
        data = self.body()
        path = self.path.split("?")[0]
        self.server.requests.append(f"POST {path}")
        if path == "/api/repos/create":
            self.create(json.loads(data))
        elif path == "/api/validate-yaml":
            self.reply({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(data)["files"]
            ]
            self.reply({"files": modes})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**wanted, "actions": {"upload": {"href": f"{self.server.url}/large"}}}
                for wanted in json.loads(data)["objects"]
            ]
            self.reply({"transfer": "basic", "objects": objects})
        elif "/commit/" in path:
            self.commit(path, data)
        else:
            self.reply({"error": f"no such address: {path}"}, 404)

    def create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted.get('organization')}/{wanted['name']}"
        if self.headers.get("Authorization") != "Bearer hf_right":
            self.reply({"error": "you may not write here"}, 403)
            return
        self.server.repositories.setdefault(name, {})
        self.reply({"url": f"{self.server.url}/{name}", "name": name})

    def commit(self, path: str, data: bytes) -> None:
        name = path.removeprefix("/api/models/").split("/commit/")[0]
        files = self.server.repositories[name]
        for line in data.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
        url = f"{self.server.url}/{name}/commit/{COMMIT}"
        self.reply({"commitUrl": url, "commitOid": COMMIT, "success": True})

    def do_PUT(self) -> None:
        data = self.body()
        self.server.large[hashlib.sha256(data).hexdigest()] = data
        self.reply(b"")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        name, _, rest = self.path.split("?")[0].lstrip("/").partition("/resolve/")
        content = self.server.repositories.get(name, {}).get(rest.partition("/")[2])
        if content is None:
            code = "EntryNotFound" if name in self.server.repositories else "RepoNotFound"
            self.reply({}, 404, X_Error_Code=code, X_Repo_Commit=COMMIT)
        else:
            etag = hashlib.sha256(content).hexdigest()
            self.reply(content, ETag=f'"{etag}"', X_Repo_Commit=COMMIT)


@contextmanager
def local_hub() -> Iterator[Hub]:
    with Hub() as hub:
        Thread(target=hub.serve_forever, daemon=True).start()
        try:
            yield hub
        finally:
            hub.shutdown()
