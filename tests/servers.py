"""Real servers for the tests: S3 (moto's server process), and a proxy before it that does harm when told to."""

import contextlib
import http.client
import re
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.bucket import Bucket as Bucket

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def moto_server(log: Path) -> Iterator[str]:
    """The endpoint of an S3 server in a process of its own."""
    port = free_port()
    with log.open("w") as out:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        wait_for(port, server, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=30)


def wait_for(port: int, server: subprocess.Popen[Any], log: Path) -> None:
    for _ in range(600):
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with {server.returncode}: {log.read_text()}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"no server on port {port} after 30 s: {log.read_text()}")


@dataclass
class Fault:
    """Done to requests that `match` is found in, `times` times, after the first `after` of them.

    `match` is a regular expression on the text "METHOD target", then "name: value" (lower-case name) a line.

    kind: status        answers `status`, with `code` in an S3 error body
          flip          one bit of the body is another
          truncate      the connection ends in the middle of the body
          short         half a body, with a Content-Length that agrees
          stall         half a body, then nothing more
          ignore_range  the whole object and 200, whatever range was asked
          wrong_range   another range than asked
          etag          another ETag
          reset         the connection is reset before anything is done
          lost          the request is carried out, but its answer is lost
          half_upload   half of what is sent is stored
    """

    kind: str
    match: str = "^GET "
    times: int = 10**9
    after: int = 0
    status: int = 503
    code: str = "SlowDown"


@dataclass
class FaultyProxy:
    """An HTTP server that passes everything on to `upstream`; also a forward proxy that sends every host there."""

    upstream: str
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)  # as Fault.match sees them
    endpoint: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, request: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if not re.search(fault.match, request):
                    continue
                if fault.after > 0:
                    fault.after -= 1
                elif fault.times > 0:
                    fault.times -= 1
                    return fault
            return None

    def seen(self, match: str) -> list[str]:
        return [request for request in list(self.requests) if re.search(match, request)]


@contextlib.contextmanager
def faulty_proxy(upstream: str, certificate: Path | None = None) -> Iterator[FaultyProxy]:
    """Runs in a thread of this process. `certificate`: a PEM file with key and chain; then it speaks https."""
    proxy = FaultyProxy(upstream)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    proxy.endpoint = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # clients may go away as they like
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: FaultyProxy

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _pass_on(self) -> None:
        split = urlsplit(self.path)  # absolute where a client takes this for a forward proxy
        target = split.path + (f"?{split.query}" if split.query else "")
        body = self._body()
        lines = [f"{self.command} {target}", *(f"{name.lower()}: {value}" for name, value in self.headers.items())]
        request = "\n".join(lines)
        fault = self.proxy.take(request)
        self.proxy.requests.append(request)
        kind = fault.kind if fault else ""
        if kind == "reset":
            return self._reset()
        if fault and kind == "status":
            text = f"<Error><Code>{fault.code}</Code><Message>told to fail</Message></Error>".encode()
            return self._answer(
                fault.status, {"content-type": "application/xml", "content-length": str(len(text))}, text
            )
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        if kind == "half_upload":
            body = body[: len(body) // 2]
        headers = {name: value for name, value in headers.items() if name.lower() != "content-length"}
        if body:
            headers["Content-Length"] = str(len(body))
        if kind == "ignore_range":
            headers = {name: value for name, value in headers.items() if name.lower() != "range"}
        if kind == "wrong_range":
            headers["Range"] = "bytes=1-" + headers["Range"].partition("-")[2]
        upstream = http.client.HTTPConnection(urlsplit(self.proxy.upstream).netloc, timeout=60)
        upstream.request(self.command, target, body or None, headers)
        answer = upstream.getresponse()
        data = answer.read()
        upstream.close()
        given = {name.lower(): value for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP}
        given.setdefault("content-length", str(len(data)))
        if kind == "lost":
            return self._reset()
        if kind == "flip" and data:
            damaged = bytearray(data)
            damaged[len(data) // 2] ^= 1
            data = bytes(damaged)
        if kind == "short":
            data = data[: len(data) // 2]
            given["content-length"] = str(len(data))
        if kind == "etag":
            given["etag"] = '"00000000000000000000000000000000"'
        return self._answer(
            answer.status, given, data[: len(data) // 2] if kind in ("truncate", "stall") else data, kind
        )

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815 - the names that http.server looks for

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, status: int, headers: dict[str, str], data: bytes, kind: str = "") -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(OSError):
                self.wfile.write(data)
                if kind == "stall":
                    self.wfile.flush()
                    self.connection.settimeout(120)
                    self.connection.recv(1)  # until the client has had enough
        if kind in ("truncate", "stall"):
            self._reset(gently=True)

    def _reset(self, gently: bool = False) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            if not gently:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.wfile.flush()
            self.connection.close()


HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "host", "expect"}
