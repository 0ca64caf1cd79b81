"""Who is let in: a node of this very job, whose ranks would compute the same. All else is refused in one line."""

import json
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from job import __version__
from job.config import RunConfig, trajectory
from job.errors import ExitCode
from job.host.gang_line import Line
from job.host.gang_messages import Hello, Refused
from job.host.topology import Topology
from job.machine import node_name

SHOWN_FIELDS = 3
REASON_SIGNS = 1000
STRANGERS_TOLD = 20  # lines; whoever scans ports is not to fill the log


@dataclass
class Member:
    """A node that was let in, for as long as its connection holds."""

    line: Line
    hello: Hello
    ready_for: str = ""  # nonce of the attempt whose inputs it has


class Strangers:
    """Tells of those that were not let in, each thing once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._told, self._lock = say, set[str](), threading.Lock()

    def tell(self, text: str) -> None:
        with self._lock:
            if text in self._told or len(self._told) >= STRANGERS_TOLD:
                return
            self._told.add(text)
        self._say(text)


def hello(config: RunConfig, machine: Topology) -> Hello:
    """What a node says of itself; `config` as it was given, as no other node has settled it alike."""
    return Hello(
        version=__version__,
        nodes=machine.nodes,
        node_rank=machine.node_rank,
        ranks_per_node=machine.ranks_per_node,
        device=machine.device,
        trajectory=trajectory(config),
        process=secrets.token_hex(8),
        host=node_name(),
    )


def refusal(ours: Hello, theirs: Hello, present: Hello | None) -> Refused | None:
    """`ours`: what the leader says of itself. `present`: of the supervisor that is here under the same node rank."""
    if (rank := theirs.node_rank) not in range(1, ours.nodes) and theirs.nodes == ours.nodes:
        return _refused(f"node rank {rank} is none of 1 to {ours.nodes - 1} of {ours.nodes} nodes")
    for difference in _differences(ours, theirs):
        return _refused(f"node {rank} does not fit: {difference}")
    if theirs.failed is not None:
        return _refused(f"node {rank} cannot take part: {theirs.failed.message}", code=theirs.failed.code)
    if present is not None and present.process != theirs.process:
        return _refused(f"node {rank} is here already: two supervisors have the node rank {rank}", again=True)
    return None


def _refused(reason: str, again: bool = False, code: int = ExitCode.CONFIG) -> Refused:
    """A stranger's words stand in the reason: none of them is to move a terminal's cursor."""
    plain = "".join(sign if sign.isprintable() else "?" for sign in reason)
    return Refused(code=code, reason=plain[:REASON_SIGNS], again=again)


def _differences(ours: Hello, theirs: Hello) -> Iterator[str]:
    pairs = (
        ("sft-job", theirs.version, ours.version),
        ("the protocol of the nodes", theirs.protocol, ours.protocol),
        ("the number of nodes", theirs.nodes, ours.nodes),
        *(() if theirs.failed else _ranks(ours, theirs)),
    )
    for name, there, here in pairs:
        if there != here:
            yield f"{name} is {there} there, {here} on node 0"
    paths = sorted({*ours.trajectory, *theirs.trajectory})
    missing = object()
    different = [at for at in paths if ours.trajectory.get(at, missing) != theirs.trajectory.get(at, missing)]
    if different:
        shown = (f"{at} is {_shown(theirs, at)} there, {_shown(ours, at)} on node 0" for at in different[:SHOWN_FIELDS])
        more = f"; and {len(different) - SHOWN_FIELDS} more" if len(different) > SHOWN_FIELDS else ""
        yield f"its config is another: {'; '.join(shown)}{more}"


def _ranks(ours: Hello, theirs: Hello) -> tuple[tuple[str, object, object], ...]:
    return (
        ("ranks on each node", theirs.ranks_per_node, ours.ranks_per_node),
        ("the device", theirs.device, ours.device),
    )


def _shown(hello: Hello, path: str) -> str:
    if path not in hello.trajectory:
        return "absent"
    value = hello.trajectory[path]
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
