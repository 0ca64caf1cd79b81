"""This node's place in the job: what the launchers say and what SFT_JOB_* says, brought to one answer or refused.

SFT_JOB_NODES, SFT_JOB_NODE_RANK and SFT_JOB_LEADER add what no launcher says: the nodes of an Indexed Job and of a
JobSet, which tell a pod its index alone, or of machines that nobody launched together.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from job.errors import ConfigError
from job.host.sources import DEFAULT_PORT, READERS, THIS_MACHINE, Told, number

NODES, NODE_RANK, LEADER = "SFT_JOB_NODES", "SFT_JOB_NODE_RANK", "SFT_JOB_LEADER"
INDEX = "JOB_COMPLETION_INDEX"  # of a pod within its Indexed Job; a JobSet's pods have it too


@dataclass(frozen=True)
class Place:
    """One node among all of the job's."""

    by: str = ""  # who says so, if anybody
    nodes: int = 1
    node_rank: int = 0
    leader: str = THIS_MACHINE
    port: int = 0  # of the leader's supervisor; 0 where there is one node
    ranks_per_node: int | None = None  # as the launcher asks for
    ranks_from: str = ""


def place(environment: Mapping[str, str]) -> Place:
    """Raises: ConfigError for a contradiction, naming both variables, and for several nodes without a leader."""
    if environment.get(NODES, "").strip() == "1":
        return Place(NODES)
    told = [said for reader in READERS if (said := reader(environment)) is not None]
    own = _own(environment, told)
    everyone = [own, *told] if own else told
    if not everyone:
        return Place()
    for other in everyone[1:]:
        _refuse_contradiction(everyone[0], other)
    first = everyone[0]
    if first.node_rank >= first.nodes:
        raise ConfigError(
            f"{first.rank_from} is {first.node_rank}, but {first.nodes_from} is {first.nodes}: nodes are counted from 0"
        )
    asked = next((said for said in everyone if said.ranks_per_node), first)
    by = " and ".join(said.by for said in everyone)
    if first.nodes == 1:
        return Place(by, ranks_per_node=asked.ranks_per_node, ranks_from=asked.ranks_from)
    leader, port = _leader(environment, everyone)
    return Place(by, first.nodes, first.node_rank, leader, port, asked.ranks_per_node, asked.ranks_from)


def _own(environment: Mapping[str, str], told: list[Told]) -> Told | None:
    """What SFT_JOB_NODES and SFT_JOB_NODE_RANK say, each perhaps completed by the launcher."""
    if NODES not in environment and (NODE_RANK not in environment or not told):
        if NODE_RANK in environment:
            raise ConfigError(f"{NODE_RANK} is {environment[NODE_RANK]}, but nothing says how many nodes: set {NODES}")
        return None
    rank = next((name for name in (NODE_RANK, INDEX) if name in environment and (name == NODE_RANK or not told)), None)
    if rank is None and not told:
        raise ConfigError(f"{NODES} is {environment[NODES]}, but nothing says which of them this is: set {NODE_RANK}")
    nodes = number(environment, NODES) if NODES in environment else told[0].nodes
    if nodes < 1:
        raise ConfigError(f"{NODES} is {nodes}: give a whole number, at least 1")
    return Told(
        "Indexed Job" if rank == INDEX else NODES if NODES in environment else NODE_RANK,
        nodes,
        NODES if NODES in environment else told[0].nodes_from,
        number(environment, rank) if rank else told[0].node_rank,
        rank or told[0].rank_from,
    )


def _refuse_contradiction(one: Told, other: Told) -> None:
    pairs = (
        (one.nodes_from, one.nodes, other.nodes_from, other.nodes),
        (one.rank_from, one.node_rank, other.rank_from, other.node_rank),
    )
    for name, value, other_name, other_value in pairs:
        if value != other_value:
            raise ConfigError(
                f"{name} says {value}, but {other_name} says {other_value}: one of them is not this job's; "
                f"unset it, or set {NODES}=1 for this machine alone"
            )


def _leader(environment: Mapping[str, str], everyone: list[Told]) -> tuple[str, int]:
    """SFT_JOB_LEADER first: whoever sets it knows the network."""
    told = next((said for said in everyone if said.leader), None)
    port = (told and told.port) or DEFAULT_PORT
    if LEADER in environment:
        return _address(environment[LEADER].strip(), port)
    if told is None or told.leader is None:
        nodes = everyone[0]
        raise ConfigError(
            f"{nodes.nodes_from} is {nodes.nodes}, but nothing says where node 0 is reached: set {LEADER} to its "
            "host name or address"
        )
    return told.leader, port


def _address(text: str, port: int) -> tuple[str, int]:
    """host, host:port, [IPv6] or [IPv6]:port."""
    host, colon, given = text.rpartition(":")
    if not colon or text.endswith("]") or (":" in host and not host.endswith("]")):
        host, given = text, str(port)
    host = host.removeprefix("[").removesuffix("]")
    if not host or "/" in host or not given.isdigit() or not 0 < int(given) < 1 << 16:
        raise ConfigError(f"{LEADER} is {text!r}: give node 0's host name or address, perhaps with :port")
    return host, int(given)
