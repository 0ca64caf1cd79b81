"""Networks that lead nowhere else, and an S3 server in one of them, on this machine's own address there."""

import contextlib
import json
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from job.tiny import make, write_demo_chat
from tests.bucket import Bucket
from tests.container.building import Image
from tests.container.runtime import fresh_name
from tests.harness import ROOT
from tests.servers import KEYS

HOLDER_SECONDS = 3600
SECRET = "planted-aws-secret-7d1f"


@dataclass(frozen=True)
class Network:
    name: str
    gateway: str  # this machine's address in it


@contextlib.contextmanager
def network(image: Image) -> Iterator[Network]:
    """Without a way out. A container that does nothing holds it up: it has no address before the first one."""
    podman, name = image.runtime.podman, fresh_name()
    podman("network", "create", "--internal", name)
    try:
        holder = f"{name}-holder"
        podman("run", "--detach", "--name", holder, "--network", name, "--entrypoint=sleep", image.name, HOLDER_SECONDS)
        try:
            told = json.loads(podman("network", "inspect", name))[0]
            yield Network(name, told["subnets"][0]["gateway"])
        finally:
            podman("rm", "--force", "--volumes", "--time=0", holder, check=False)
    finally:
        podman("network", "rm", "--force", name, check=False)


@contextlib.contextmanager
def store(place: Network, folder: Path) -> Iterator[Bucket]:
    """An S3 server with a bucket that holds a base and chats."""
    with socket.socket() as probe:
        probe.bind((place.gateway, 0))
        port = int(probe.getsockname()[1])
    log = folder / "moto.log"
    with log.open("w", encoding="utf-8") as out:
        words = [sys.executable, "-m", "tests.moto_server", "-H", place.gateway, "-p", str(port)]
        server = subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT)
    try:
        _wait_for(place.gateway, port, server, log)
        endpoint = f"http://{place.gateway}:{port}"
        env = {
            **KEYS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        bucket = Bucket(endpoint, f"test-{uuid.uuid4().hex[:12]}", env)
        client = bucket.client()
        client.create_bucket(Bucket=bucket.name)
        for file in sorted(make(folder / "base").iterdir()):
            client.upload_file(str(file), bucket.name, f"base/{file.name}")
        client.upload_file(str(write_demo_chat(folder / "chat.jsonl")), bucket.name, "chat.jsonl")
        yield bucket
    finally:
        server.terminate()
        server.wait(timeout=30)


def _wait_for(host: str, port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert server.poll() is None, f"the server ended with {server.returncode}: {log.read_text(encoding='utf-8')}"
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
            return
        time.sleep(0.1)
    raise AssertionError(f"no server at {host}:{port}: {log.read_text(encoding='utf-8')}")
