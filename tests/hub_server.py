"""A stand-in for the hub: the few endpoints that its own client needs, served from memory."""

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

COMMIT = "a" * 40


@dataclass
class Hub:
    """Repositories by their path below /api ("models/org/name"); each commit holds files."""

    endpoint: str = ""
    commits: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})
    gated: set[str] = field(default_factory=set)
    damaged: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    broken: bool = False
    ranges: bool = False


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        path = unquote(self.path.partition("?")[0]).strip("/")
        if self.hub.broken:
            return self.answer(503, b"")
        if path.startswith("api/"):
            return self.info(path.removeprefix("api/"))
        return self.file(path)

    do_HEAD = do_GET  # noqa: N815 - the base class's name

    def info(self, path: str) -> None:
        name, _, revision = path.partition("/revision/")
        if name not in self.hub.commits:
            return self.answer(401, b"", {"X-Error-Code": "RepoNotFound"})
        commit = self.hub.branches.get(revision, revision)
        files = self.hub.commits[name].get(commit)
        if files is None:
            return self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        siblings = [described(file, data) for file, data in files.items()]
        body = {"id": name.partition("/")[2], "sha": commit, "siblings": siblings, "tags": [], "private": False}
        return self.answer(200, json.dumps(body).encode())

    def file(self, path: str) -> None:
        repository, _, rest = path.partition("/resolve/")
        commit, _, name = rest.partition("/")
        kind = repository if repository.startswith("datasets/") else f"models/{repository}"
        if kind in self.hub.gated:
            return self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
        data = self.hub.commits[kind][commit].get(name)
        if data is None:
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        if name in self.hub.damaged and self.command == "GET":
            data = bytes([data[0] ^ 1]) + data[1:]
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if self.hub.ranges else None
        if asked is not None:
            return self.answer(206 if int(asked[1]) < len(data) else 416, data[int(asked[1]) : int(asked[2]) + 1])
        return self.answer(
            200, data, {"ETag": f'"{etag(name, self.hub.commits[kind][commit][name])}"', "X-Repo-Commit": commit}
        )

    def answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


def etag(name: str, data: bytes) -> str:
    if name.endswith(".safetensors"):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def described(name: str, data: bytes) -> dict[str, Any]:
    lfs = (
        {"lfs": {"sha256": etag(name, data), "size": len(data), "pointerSize": 1}}
        if name.endswith(".safetensors")
        else {}
    )
    return {
        "rfilename": name,
        "size": len(data),
        "blobId": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(),
        **lfs,
    }


@contextlib.contextmanager
def hub_server() -> Iterator[Hub]:
    served = Hub()
    listening = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": served}))
    served.endpoint = f"http://127.0.0.1:{listening.server_address[1]}"
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()
