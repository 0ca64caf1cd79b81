"""Several supervisors of one job on this machine, each with a home of its own, as a launcher starts them on nodes."""

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from job.storage.store import ObjectStore
from tests.harness import Job
from tests.servers import free_port
from tests.tiny_runs import TinyRuns


@dataclass
class Nodes:
    """One run's nodes; `fields` go to all of them. None is left when the block ends."""

    runs: TinyRuns
    name: str
    fields: dict[str, Any]
    count: int = 2
    port: int = field(default_factory=free_port)
    jobs: list[Job] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for job in self.jobs:
            if job.process.poll() is None:
                job.process.kill()
                job.process.wait()

    def start(self, rank: int, variables: Mapping[str, str] | None = None, **other: Any) -> Job:
        """`variables` of this node's environment; `other`: fields that it has otherwise."""
        extra = {
            **self.runs.extra,
            **(variables or {}),
            "SFT_JOB_NODES": str(self.count),
            "SFT_JOB_NODE_RANK": str(rank),
            "SFT_JOB_LEADER": f"127.0.0.1:{self.port}",
        }
        arguments = self.runs.arguments(self.name, {**self.fields, **other})
        self.jobs.append(Job(arguments, self.runs.home / f"{self.name}-{rank}", extra))
        return self.jobs[-1]

    def start_all(self) -> list[Job]:
        return [self.start(rank) for rank in range(self.count)]

    def connected(self) -> socket.socket:
        """As a stranger to the leader."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def said(self) -> str:
        return "\n".join(f"---- {job.log}\n{job.said()}" for job in self.jobs)

    def ended(self, *jobs: Job) -> list[int]:
        """Exit codes; nothing that they started is left."""
        return [job.ended() for job in jobs]


def losses(store: ObjectStore) -> dict[int, float]:
    """By step, as the run folder has them."""
    lines = [line for entry in store.list("events/") for line in store.get(entry.key).splitlines()]
    told = [event for event in map(json.loads, lines) if event["kind"] == "step"]
    assert told
    return {event["step"]: event["loss"] for event in told}
