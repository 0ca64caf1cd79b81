"""A proxy before an HTTP server that does harm when told to: one event loop in a thread, any number of connections."""

import asyncio
import contextlib
import re
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.digests import refusal_of
from tests.messages import Message, read_body, read_head

PATIENCE_SECONDS = 120


@dataclass
class Fault:
    """Done to requests that `match` is found in, `times` times, after the first `after` of them.

    `match` is a regular expression on the text "METHOD target", then "name: value" (lower-case name) a line.

    kind: status        answers `status`, with `code` in an S3 error body
          reset         the connection is reset before anything is done
          lost          the request is carried out, but its answer is lost: the connection is reset
          silent        the request is carried out, but its answer never comes
          flip          one bit of the answer's body is another
          truncate      the connection ends in the middle of the body
          short         half a body, with a Content-Length that agrees
          stall         half a body, then nothing more
          slow          the body comes at `bytes_per_second`
          ignore_range  the whole object and 200, whatever range was asked
          wrong_range   another range than asked
          etag          another ETag
          cut_upload    the connection is reset when half of what is sent was read
          half_upload   half of what is sent is stored
          flip_upload   one bit of what is sent is another when it is stored
          slow_upload   what is sent is read at `bytes_per_second`
          unconditional the condition of a conditional write is not seen
          hide          where the server says that something is missing, it is refused instead
    """

    kind: str
    match: str = "^GET "
    times: int = 10**9
    after: int = 0
    status: int = 503
    code: str = "SlowDown"
    body: str = ""  # instead of the S3 error
    bytes_per_second: int = 100_000


@dataclass
class FaultyProxy:
    """Passes everything on to `upstream`; also a forward proxy that sends every host there.

    `strict`: what does not fit its own checksum headers is refused before it gets to the server, as AWS does.
    """

    upstream: str
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)  # as Fault.match sees them
    endpoint: str = ""
    strict: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, request: str) -> Fault | None:
        with self._lock:
            self.requests.append(request)
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
    """Runs beside the caller. `certificate`: a PEM file with key and chain; then it speaks https."""
    proxy = FaultyProxy(upstream)
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    proxy.endpoint = f"{'https' if certificate else 'http'}://127.0.0.1:{listening.getsockname()[1]}"
    loop = asyncio.new_event_loop()
    over = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(_serve(proxy, listening, context, over),))
    thread.start()
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


async def _serve(
    proxy: FaultyProxy, listening: socket.socket, context: ssl.SSLContext | None, over: asyncio.Event
) -> None:
    talks: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        try:
            # Clients may go away as they like.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError, asyncio.CancelledError):
                while await _exchange(proxy, reader, writer):
                    pass
        finally:
            talks.discard(task)
            writer.close()

    server = await asyncio.start_server(talk, sock=listening, ssl=context)
    await over.wait()
    server.close()
    for task in talks:
        task.cancel()
    await asyncio.gather(*talks, return_exceptions=True)
    await asyncio.sleep(0)


async def _exchange(proxy: FaultyProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """One request and its answer; False where the connection is done with."""
    request, given = await read_head(reader)
    method, target, _ = request.first.split(" ")
    split = urlsplit(target)  # absolute where a client takes this for a forward proxy
    target = split.path + (f"?{split.query}" if split.query else "")
    lines = [f"{method} {target}", *(f"{name}: {value}" for name, value in given.items())]
    fault = proxy.take("\n".join(lines)) or Fault("")
    if given.get("expect"):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if fault.kind == "cut_upload":
        await reader.readexactly(int(given.get("content-length", 0)) // 2)
        return _reset(writer)
    if fault.kind == "slow_upload":
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    request.body = await read_body(reader, given, fault.bytes_per_second if fault.kind == "slow_upload" else None)
    if fault.kind == "reset":
        return _reset(writer)
    if fault.kind == "status":
        answer = _refusal(fault.status, fault.code, fault.body)
    else:
        request.first = f"{method} {target} HTTP/1.1"
        _harm_request(request, fault.kind)
        code = refusal_of(request.headers, request.body) if proxy.strict else None
        answer = _refusal(400, code) if code else await _ask(proxy.upstream, request)
    if fault.kind == "lost":
        return _reset(writer)
    if fault.kind == "silent":
        await asyncio.wait_for(reader.read(1), PATIENCE_SECONDS)  # until the client has had enough
        return False
    answer = _harmed_answer(answer, fault.kind)
    writer.write(answer.head())
    return method == "HEAD" or await _send_body(reader, writer, answer.body, fault)


def _harm_request(request: Message, kind: str) -> None:
    if kind == "half_upload":
        request.body = request.body[: len(request.body) // 2]
    if kind == "flip_upload":
        request.body = _flipped(request.body)
    if kind == "ignore_range":
        request.headers.pop("range", None)
    if kind == "wrong_range":
        request.headers["range"] = "bytes=1-" + request.headers["range"].partition("-")[2]
    if kind == "unconditional":
        request.headers.pop("if-none-match", None)


def _harmed_answer(answer: Message, kind: str) -> Message:
    if kind == "hide" and answer.first.split(" ")[1] == "404":
        answer = _refusal(403, "AccessDenied")
    if kind == "flip":
        answer.body = _flipped(answer.body)
    if kind == "short":
        answer.body = answer.body[: len(answer.body) // 2]
        answer.headers["content-length"] = str(len(answer.body))
    if kind == "etag":
        answer.headers["etag"] = '"00000000000000000000000000000000"'
    return answer


async def _send_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes, fault: Fault) -> bool:
    if fault.kind == "slow":
        for start in range(0, len(body), step := max(1, fault.bytes_per_second // 20)):
            writer.write(body[start : start + step])
            await writer.drain()
            await asyncio.sleep(0.05)
        return True
    writer.write(body[: len(body) // 2] if fault.kind in ("truncate", "stall") else body)
    await writer.drain()
    if fault.kind == "stall":
        await asyncio.wait_for(reader.read(1), PATIENCE_SECONDS)
    return fault.kind not in ("truncate", "stall")


async def _ask(upstream: str, request: Message) -> Message:
    where = urlsplit(upstream)
    assert where.hostname and where.port
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        request.headers |= {"host": where.netloc, "connection": "close"}
        if request.body or request.first.startswith(("PUT", "POST")):
            request.headers["content-length"] = str(len(request.body))
        writer.write(request.head() + request.body)
        answer, given = await read_head(reader)
        if not request.first.startswith("HEAD"):
            answer.body = await read_body(reader, given)
        answer.headers["content-length"] = given.get("content-length", str(len(answer.body)))
        return answer
    finally:
        writer.close()


def _refusal(status: int, code: str, body: str = "") -> Message:
    text = (body or f"<Error><Code>{code}</Code><Message>told to fail</Message></Error>").encode()
    headers = {"content-type": "application/xml", "content-length": str(len(text))}
    return Message(f"HTTP/1.1 {status} Told", headers, text)


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if data else data


def _reset(writer: asyncio.StreamWriter) -> bool:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False
