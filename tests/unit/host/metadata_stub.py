"""A metadata service on 127.0.0.1 that answers as it is told, on a clock of its own."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

START = datetime(2031, 3, 1, 12, 0, 0, tzinfo=UTC)  # years from this machine's clock

TOKEN = "PUT /latest/api/token"
SPOT = "GET /latest/meta-data/spot/instance-action"
REBALANCE = "GET /latest/meta-data/events/recommendations/rebalance"
PREEMPTED = "GET /computeMetadata/v1/instance/preempted"
EVENTS = "GET /metadata/scheduledevents?api-version=2020-07-01"
NAME = "GET /metadata/instance/compute/name?api-version=2021-02-01&format=text"
FLAVOR = {"Metadata-Flavor": "Google"}


@dataclass
class Reply:
    status: int = 200
    body: str | bytes = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class MetadataStub:
    """`replies` by "METHOD path"; anything else is a 404. While `hanging`, nothing is answered."""

    replies: dict[str, Reply] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    now: datetime = START
    hanging: bool = False
    port: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def iso(self, seconds: float) -> str:
        return (self.now + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def rfc1123(self, seconds: float) -> str:
        return format_datetime(self.now + timedelta(seconds=seconds), usegmt=True)


@contextmanager
def serving() -> Iterator[MetadataStub]:
    stub = MetadataStub()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            name = f"{self.command} {self.path}"
            stub.asked.append((name, {key.lower(): value for key, value in self.headers.items()}))
            if stub.hanging:
                stub.over.wait()
                return
            reply = stub.replies.get(name, Reply(404, "Not Found"))
            body = reply.body.encode() if isinstance(reply.body, str) else reply.body
            self.send_response_only(reply.status)
            for key, value in {
                "Date": stub.rfc1123(0),
                "Content-Length": str(len(body)),
                **reply.headers,
            }.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = answer  # noqa: N815

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        stub.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def spot(stub: MetadataStub, seconds: float, action: str = "terminate") -> Reply:
    return Reply(body=f'{{"action": "{action}", "time": "{stub.iso(seconds)}"}}')


def event(stub: MetadataStub, kind: str, seconds: float, *names: str, status: str = "Scheduled") -> str:
    resources = ", ".join(f'"{name}"' for name in names)
    before = "" if status == "Started" else stub.rfc1123(seconds)
    return (
        f'{{"EventId": "1", "EventType": "{kind}", "ResourceType": "VirtualMachine", "Resources": [{resources}], '
        f'"EventStatus": "{status}", "NotBefore": "{before}", "DurationInSeconds": -1}}'
    )


def events(*found: str) -> Reply:
    return Reply(body=f'{{"DocumentIncarnation": 2, "Events": [{", ".join(found)}]}}')
