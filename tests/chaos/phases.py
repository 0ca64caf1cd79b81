"""Every edge between two phases of a run, as it can be seen from outside, and the deeds done there."""

import random
from collections.abc import Sequence

from tests.chaos.experiment import STEPS, Experiment
from tests.chaos.observing import SUPERVISOR, Deed

# (name, process, pattern, nth, after): the moment is just before or after what the line tells
Edge = tuple[str, str, str, int, str]
IN_SUPERVISOR: Sequence[Edge] = (
    ("the run folder is looked at", SUPERVISOR, r"before get run\.json", 1, ""),
    ("inputs are pulled", SUPERVISOR, r"open base/model\.safetensors", 1, ""),
    ("before the claim", SUPERVISOR, r"before put_if_absent attempts/\d+\.json", 1, ""),
    ("after the claim", SUPERVISOR, r"after put_if_absent attempts/\d+\.json", 1, ""),
    ("the first heartbeat", SUPERVISOR, r"before put attempts/\d+-beat", 1, ""),
    ("commits are looked for", SUPERVISOR, r"after list commits/", 2, ""),
    ("prepared rows go up", SUPERVISOR, r"after upload prepared/", 1, ""),
    ("before the prepared record", SUPERVISOR, r"before put_if_absent prepared/", 1, ""),
    ("after the prepared record", SUPERVISOR, r"after put_if_absent prepared/", 1, ""),
    ("before run.json", SUPERVISOR, r"before put_if_absent run\.json", 1, ""),
    ("after run.json", SUPERVISOR, r"after put_if_absent run\.json", 1, ""),
    ("the first upload begins", SUPERVISOR, r"before upload checkpoints/", 1, ""),
    ("a file is being written", SUPERVISOR, r"rename runs/.*/checkpoints/.*/\.tmp-", 1, ""),
    ("one file is up", SUPERVISOR, r"after upload checkpoints/.*optimizer", 1, ""),
    ("two files are up", SUPERVISOR, r"after upload checkpoints/.*state", 1, ""),
    ("all files are up", SUPERVISOR, r"after upload checkpoints/.*trainable", 1, ""),
    ("before the first commit record", SUPERVISOR, r"before put_if_absent commits/", 1, ""),
    ("the record is written beside", SUPERVISOR, r"link runs/.*/commits/", 1, ""),
    ("after the first commit record", SUPERVISOR, r"after put_if_absent commits/", 1, ""),
    ("the commit is read back", SUPERVISOR, r"after get commits/", 1, ""),
    ("the second upload begins", SUPERVISOR, r"before upload checkpoints/", 4, ""),
    ("before the second commit record", SUPERVISOR, r"before put_if_absent commits/", 2, ""),
    ("after the second commit record", SUPERVISOR, r"after put_if_absent commits/", 2, ""),
    ("events are stored", SUPERVISOR, r"before put events/", 1, ""),
    ("before an old record is deleted", SUPERVISOR, r"before delete commits/", 1, ""),
    ("an old record is deleted", SUPERVISOR, r"after delete commits/", 1, ""),
    ("one of its files is deleted", SUPERVISOR, r"after delete checkpoints/", 1, ""),
    ("all of its files are deleted", SUPERVISOR, r"after delete checkpoints/", 3, ""),
    ("before the last commit record", SUPERVISOR, rf"before put_if_absent commits/\d+-0*{STEPS}\.json", 1, ""),
    ("after the last commit record", SUPERVISOR, rf"after put_if_absent commits/\d+-0*{STEPS}\.json", 1, ""),
    ("the result's files go up", SUPERVISOR, r"before upload final/", 1, ""),
    ("some of the result's files are up", SUPERVISOR, r"after upload final/", 2, ""),
    ("before result.json", SUPERVISOR, r"before put_if_absent final/result\.json", 1, ""),
    ("after result.json", SUPERVISOR, r"after put_if_absent final/result\.json", 1, ""),
    ("before the end record", SUPERVISOR, r"before put attempts/\d+-end", 1, ""),
    ("after the end record", SUPERVISOR, r"after put attempts/\d+-end", 1, ""),
)
IN_PREPARATION: Sequence[Edge] = (
    ("preparation begins", "prepare", r"open .*/prepare\.json", 1, ""),
    ("rows are prepared", "prepare", r"event preparing", 1, ""),
    ("before the prepared rows' rename", "prepare", r"rename .*/\.prepared\.\d+$", 1, ""),
)
IN_RANKS: Sequence[Edge] = (
    ("a rank begins", "rank-0", r"open .*/spec\.json", 1, ""),
    ("before the first step", "rank-0", r"event training", 1, ""),
    ("after the first step", "rank-0", r"event step 1$", 1, ""),
    ("a step", "rank-0", r"event step 4$", 1, ""),
    ("in the evaluation", "rank-0", r"open .*/stop$", 1, r"event step 5$"),
    ("while sampling", "rank-0", r"open .*/stop$", 2, r"event step 5$"),
    ("after the evaluation", "rank-0", r"event evaluation 5$", 1, ""),
    ("a snapshot begins", "rank-0", r"mkdir .*/\.step-", 1, ""),
    ("a snapshot half written", "rank-0", r"open .*/\.step-\d+/state\.json", 1, ""),
    ("before a snapshot's rename", "rank-0", r"rename .*/\.step-", 2, ""),
    ("after a snapshot's rename", "rank-0", r"event snapshot_written", 2, ""),
    ("the last step", "rank-0", rf"event step {STEPS}$", 1, ""),
    ("the last evaluation", "rank-0", rf"event evaluation {STEPS}$", 1, ""),
    ("the result is written", "rank-0", r"mkdir .*/\.final\.partial$", 1, ""),
)


PULLED_FROM_S3: Sequence[Edge] = (
    ("a file is being pulled", SUPERVISOR, r"open .*/cache/blobs/", 2, ""),
    ("a file was pulled", SUPERVISOR, r"rename .*/cache/blobs/", 2, ""),
)
STOPS = ("SIGTERM", "SIGUSR1")


def deed(edge: Edge, signal: str, target: str) -> Deed:
    _, process, pattern, nth, after = edge
    return Deed(process, pattern, signal, target, nth, after)


def kills_supervisor() -> list[Experiment]:
    return [one(edge, "SIGKILL", SUPERVISOR) for edge in (*IN_SUPERVISOR, *IN_PREPARATION, *IN_RANKS)]


def stops_supervisor() -> list[Experiment]:
    """TERM and USR1 in turn. After result.json there is nothing left to stop."""
    edges = (*IN_SUPERVISOR[:-3], *IN_PREPARATION, *IN_RANKS)
    return [one(edge, STOPS[at % 2], SUPERVISOR) for at, edge in enumerate(edges)]


def kills_rank() -> list[Experiment]:
    """By its own edges, and by those of the commits that go on meanwhile."""
    meanwhile = [edge for edge in IN_SUPERVISOR if "checkpoints/" in edge[2] or "commits/" in edge[2]]
    own = [one(edge, "SIGKILL", edge[1]) for edge in (*IN_PREPARATION, *IN_RANKS)]
    return own + [one(edge, "SIGKILL", "rank-0") for edge in meanwhile[2::3]]


def two_ranks() -> list[Experiment]:
    """One of two is killed, at its own edges; and the supervisor of both."""
    second = [("rank-1", pattern) for pattern in (r"event training", r"event step 4$", r"event snapshot 6$")]
    deeds = [Deed(process, pattern, "SIGKILL", process) for process, pattern in second]
    deeds += [deed(edge, "SIGKILL", "rank-0") for edge in IN_RANKS[3:9:2]]
    deeds += [deed(IN_RANKS[4], "SIGKILL", SUPERVISOR), deed(IN_RANKS[3], "SIGTERM", SUPERVISOR)]
    return [Experiment("two", (each,)) for each in deeds]


def other_layouts() -> list[Experiment]:
    """Full fine-tuning; and the best evaluation's weights as the result, whose commits are never left out."""
    edges = [edge for edge in (*IN_SUPERVISOR, *IN_RANKS) if edge[0] in SHORT]
    kinds = [("SIGKILL", SUPERVISOR), ("SIGTERM", SUPERVISOR), ("SIGKILL", "rank-0")]
    return [
        Experiment(layout, (deed(edge, *kinds[at % 3]),))
        for layout in ("full", "best")
        for at, edge in enumerate(edges)
    ]


def on_s3() -> list[Experiment]:
    edges = [edge for edge in (*IN_SUPERVISOR, *IN_RANKS) if edge[0] in SHORT]
    kinds = [("SIGKILL", SUPERVISOR), ("SIGTERM", SUPERVISOR)]
    return [one(edge, *kinds[at % 2]) for at, edge in enumerate((*PULLED_FROM_S3, *edges))]


SHORT = (
    "one file is up",
    "before the second commit record",
    "one of its files is deleted",
    "in the evaluation",
    "a snapshot half written",
    "before result.json",
)


def one(edge: Edge, signal: str, target: str) -> Experiment:
    return Experiment("one", (deed(edge, signal, target),))


def at_random(seed: int, number: int) -> Experiment:
    """One or two interruptions of any kind at any line of any process, or a little later."""
    draw = random.Random(f"{seed}-{number}")
    layout = draw.choice(("one", "one", "one", "full", "best", "two"))
    return Experiment(
        layout, tuple(_deed_at_random(draw, layout) for _ in range(draw.choice((1, 1, 2)))), must_happen=False
    )


def _deed_at_random(draw: random.Random, layout: str) -> Deed:
    ranks = ("rank-0", "rank-1") if layout == "two" else ("rank-0",)
    process = draw.choice((SUPERVISOR, SUPERVISOR, SUPERVISOR, "prepare", *ranks, *ranks))
    target = draw.choice((SUPERVISOR, SUPERVISOR, process if process == "prepare" else draw.choice(ranks)))
    if process in ranks and target in ranks:
        target = process  # a rank knows no other's process id
    name = "SIGKILL" if target != SUPERVISOR else draw.choice(("SIGKILL", "SIGKILL", *STOPS))
    nth = draw.randint(1, LINES[process])
    return Deed(process, "", name, target, nth, delay_seconds=draw.choice((0.0, draw.uniform(0.0, 0.05))))


LINES = {SUPERVISOR: 450, "prepare": 20, "rank-0": 110, "rank-1": 50}  # about as many as a run without interruption has


def catalogue(seed: int, randoms: int) -> dict[str, Experiment]:
    """By the name that repeats it."""
    groups = {
        "kill": kills_supervisor(),
        "stop": stops_supervisor(),
        "rank": kills_rank(),
        "two": two_ranks(),
        "layout": other_layouts(),
        "s3": on_s3(),
        "random": [at_random(seed, number) for number in range(1, randoms + 1)],
    }
    return {f"{group}-{at}": each for group, listed in groups.items() for at, each in enumerate(listed, 1)}
