"""What a job asks its store for, by kind, as the store's side sees it: one node and several, one rank and several.

Each node is a supervisor with a home of its own, all before one S3 server behind a proxy that counts. A run is begun,
stopped as soon as its first step is told, and resumed and stopped in the same way.
"""

import os
import re
import signal
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import boto3

from job import tiny
from job.errors import ExitCode
from job.storage.checkpoints import commit_keys, step_of
from tests.bench.rank_folder import make_base
from tests.fault_proxy import FaultyProxy, faulty_proxy
from tests.servers import KEYS, moto_server
from tests.tiny_runs import TinyRuns
from tests.two_nodes import Nodes

BUCKET = "bench"
HIDDEN, LAYERS = 64, 2
CHECKPOINTS, INPUTS, RECORDS = "GET of checkpoints", "of base, data, prepared rows", "of run records"
HEAD, LIST, PUT, OTHER = "HEAD", "LIST", "PUT", "other"
KINDS = (CHECKPOINTS, INPUTS, RECORDS, HEAD, LIST, PUT)
RUN_KEY = re.compile(r"runs/[^/]+/(.+)")


class Machines(NamedTuple):
    nodes: int
    ranks_each: int

    def __str__(self) -> str:
        nodes, ranks = self
        return f"{nodes} {'node' if nodes == 1 else 'nodes'}, {ranks} {'rank' if ranks == 1 else 'ranks'} each"


@dataclass(frozen=True)
class Asked:
    """How often, by kind."""

    machines: Machines
    fresh: Counter[str]
    resumed: Counter[str]


def kind(request: str) -> str:
    """Of a request as the proxy notes it: "METHOD /bucket/key?query", then its headers."""
    method, target = request.split("\n", 1)[0].split(" ", 1)
    path, _, query = target.partition("?")
    key = path.removeprefix("/").partition("/")[2]
    if method == "GET" and (not key or "list-type=" in query):
        return LIST
    if method in ("PUT", "POST"):
        return PUT
    if method != "GET":
        return HEAD if method == "HEAD" else OTHER
    of_run = RUN_KEY.fullmatch(key)
    if of_run is None or of_run[1].startswith("prepared/"):
        return INPUTS
    return CHECKPOINTS if of_run[1].startswith("checkpoints/") else RECORDS


def growth(found: Sequence[Asked]) -> list[str]:
    """Where checkpoints are read more often than on the first of `found`; one sentence each.

    Raises: ValueError where the first read none when it resumed: nothing could be said then.
    """
    least = found[0]
    if not least.resumed[CHECKPOINTS]:
        raise ValueError(f"{least.machines}: resumed without reading a checkpoint")
    return [
        f"{one.machines}: {now[CHECKPOINTS]} reads of checkpoints, {then[CHECKPOINTS]} with {least.machines}"
        for one in found[1:]
        for now, then in ((one.fresh, least.fresh), (one.resumed, least.resumed))
        if now[CHECKPOINTS] > then[CHECKPOINTS]
    ]


def measured(machines: Iterable[Machines]) -> list[Asked]:
    with tempfile.TemporaryDirectory() as folder, place(Path(folder)) as (runs, proxy):
        return [asked(runs, proxy, one) for one in machines]


@contextmanager
def place(root: Path) -> Iterator[tuple[TinyRuns, FaultyProxy]]:
    make_base(root / "base", HIDDEN, LAYERS)
    tiny.write_demo_chat(root / "chat.jsonl")
    with moto_server(root / "moto.log") as endpoint, faulty_proxy(endpoint) as proxy:
        env = {**KEYS, "AWS_ENDPOINT_URL": endpoint, "AWS_EC2_METADATA_DISABLED": "true"}
        os.environ.update(env)  # this process's own looks at the store are not counted
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        for path in [*(root / "base").iterdir(), root / "chat.jsonl"]:
            client.upload_file(str(path), BUCKET, str(path.relative_to(root)))
        runs = TinyRuns(f"s3://{BUCKET}", root / "home", {**env, "AWS_ENDPOINT_URL": proxy.endpoint})
        runs.write_config("{r: 8, alpha: 16, dropout: 0.0}")
        yield runs, proxy


def asked(runs: TinyRuns, proxy: FaultyProxy, machines: Machines) -> Asked:
    name = f"run-{machines.nodes}-{machines.ranks_each}"
    fields = {
        "data__eval": None,
        "train__max_steps": 100_000,
        "checkpoint__every": "100000 steps",
        "parallel__nproc_per_node": machines.ranks_each,
        "parallel__wait_for_nodes": "120s",
    }
    found = []
    for _ in range(2):
        store = runs.store(name)
        done = max(map(step_of, commit_keys(store)), default=0)
        before = len(proxy.requests)
        one_attempt(Nodes(runs, name, fields, machines.nodes), done)
        found.append(Counter(kind(request) for request in proxy.requests[before:]))
    return Asked(machines, *found)


def one_attempt(nodes: Nodes, done: int) -> None:
    with nodes:
        leader, *_ = jobs = nodes.start_all()
        leader.wait_for_step(done + 1)
        leader.signal(signal.SIGTERM)
        assert set(nodes.ended(*jobs)) == {ExitCode.STOPPED}, nodes.said()
