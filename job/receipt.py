"""What an attempt resumed, and whether it resumed well: a replayed step's loss beside the one that was logged before.

A receipt is a bonus: nothing here ever stops an attempt. What stores and reads it runs on a thread of its own.
"""

import hashlib
import json
import math
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from job.config import RunConfig
from job.errors import JobError
from job.host.topology import Topology
from job.storage.attempts import Owner
from job.storage.records import Commit
from job.storage.store import ObjectStore

TOLERANCE = 1e-3  # relative: another layout adds in another order, another state gives another loss
LOOK_BACK_ATTEMPTS = 5
LOOK_BACK_SEGMENTS = 200  # of one attempt; each costs a request


def prepared_rows(prepared: Path) -> int:
    """Rows of one epoch, as preparation counted them in the folder `prepared`."""
    summary = json.loads((prepared / "summary.json").read_text(encoding="utf-8"))
    return int(summary.get("epoch_rows") or summary["rows"])


def position(config: RunConfig, rows: int, step: int) -> dict[str, Any]:
    """Where in the data the next step begins: epochs count from 0, rows in the order of the epoch."""
    steps_per_epoch = math.ceil(rows / config.train.global_batch_size)
    epoch, step_of_epoch = divmod(step, steps_per_epoch)
    done = min(step_of_epoch * config.train.global_batch_size, rows)
    return {"epoch": epoch, "rows_done": done, "rows": rows, "next_row": done}


def receipt(
    key: str,
    digest: str | None,
    commit: Commit,
    config: RunConfig,
    rows: int,
    machine: Topology,
    versions: Mapping[str, str],
) -> dict[str, Any]:
    """All that is known at the resume. `digest`: SHA-256, hex, of the commit's record."""
    now = {"world_size": machine.world_size, "strategy": machine.strategy}
    then = {"world_size": commit.world_size, "strategy": commit.strategy}
    packages = sorted({*commit.versions, *versions})
    return {
        "commit": key,
        "digest": digest,
        "attempt": commit.attempt,
        "step": commit.step,
        "position": position(config, rows, commit.step),
        **{name: {"then": then[name], "now": now[name]} for name in now},
        "versions": {
            name: {"then": commit.versions.get(name), "now": versions.get(name)}
            for name in packages
            if commit.versions.get(name) != versions.get(name)
        },
        "origin": commit.origin.model_dump(mode="json") if commit.origin else None,
        "replayed": None,
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """The receipt as the log has it: one line, and one for each thing that is not as it was."""
    at = found["position"]
    said = [
        f"resume receipt: step {found['step']} of {found['commit']}, sha256 {(found['digest'] or 'unknown')[:16]}, "
        f"next is row {at['next_row']:,} of {at['rows']:,} in epoch {at['epoch']}"
    ]
    if origin := found["origin"]:
        said.append(f"  forked from {origin['run']}, {origin['commit']}")
    changes = {"world size": found["world_size"], "strategy": found["strategy"], **found["versions"]}
    return said + [
        f"  {name}: {change['then'] or 'none'} then, {change['now'] or 'none'} now"
        for name, change in changes.items()
        if change["then"] != change["now"]
    ]


def compared(step: int, loss: float, before: float) -> dict[str, Any]:
    """`difference` is relative to the loss that was logged before; None where either is no finite number."""
    finite = math.isfinite(loss) and math.isfinite(before)
    difference = abs(loss - before) / max(abs(before), 1e-12) if finite else None
    return {"step": step, "loss": loss, "logged_before": before, "difference": difference}


def verdict(replayed: Mapping[str, Any]) -> str:
    step, loss, before = replayed["step"], replayed["loss"], replayed["logged_before"]
    figures = f"step {step} gives loss {loss:.4f}, logged before {before:.4f}"
    if replayed["difference"] is not None and replayed["difference"] <= TOLERANCE:
        return f"resumed well: {figures}"
    return (
        f"warning: resumed otherwise than before: {figures}; expected where the layout and dropout, versions or the "
        "device differ, else compare the receipts of the attempts"
    )


def logged_losses(store: ObjectStore, before_attempt: int, since: Commit) -> dict[int, float]:
    """{step: loss} that attempts before this one logged beyond the commit; the newest attempt's where several did.

    Looked for from the commit's own attempt on: earlier ones cannot have trained on from it. Raises: JobError.
    """
    first = max(since.attempt, before_attempt - LOOK_BACK_ATTEMPTS, 1)
    found: dict[int, float] = {}
    for attempt in range(before_attempt - 1, first - 1, -1):
        keys = sorted(entry.key for entry in store.list(f"events/{attempt:04d}-"))
        for key in keys[: -LOOK_BACK_SEGMENTS - 1 : -1]:
            steps = _steps(store.get(key))
            for step, loss in steps.items():
                if step > since.step:
                    found.setdefault(step, loss)
            if steps and max(steps) <= since.step:
                break
    return found


def _steps(segment: bytes) -> dict[int, float]:
    """The last loss of each step in a segment; what cannot be read is passed over."""
    found = {}
    for line in segment.splitlines():
        try:
            event = json.loads(line)
            if event["kind"] == "step":
                found[int(event["step"])] = float(event["loss"])
        except (ValueError, KeyError, TypeError):
            continue
    return found


class Receipt:
    """Of one attempt that resumed. `begin` and `step` are for one thread, and return at once."""

    def __init__(
        self,
        store: ObjectStore,
        owner: Owner,
        resumed: tuple[str, Commit],
        machine: Topology,
        versions: Mapping[str, str],
        config: RunConfig,
        rows: int,
        say: Callable[[str], None],
    ) -> None:
        key, self._commit = resumed
        self._store, self._owner, self._say = store, owner, say
        self.content = receipt(key, self._digest(key), self._commit, config, rows, machine, versions)
        self._logged: dict[int, float] | None = None  # None: not read yet
        self._waiting: dict[int, float] = {}  # steps of this attempt that came before that
        self._complete = False
        self._problem: str | None = None
        self._thread: threading.Thread | None = None

    @property
    def key(self) -> str:
        return f"attempts/{self._owner.name}-resume.json"

    def begin(self) -> None:
        """Say what was resumed, store it, and look up what was logged of the steps to come."""
        for line in lines(self.content):
            self._say(line)
        self._start(self._look_up)

    def step(self, event: Mapping[str, Any]) -> None:
        """One step event of the ranks; the first that was logged before completes the receipt."""
        if self._complete or event.get("kind", "step") != "step":
            return
        if self._problem is not None:
            self._say(f"the resume receipt is not complete: {self._problem}")
            self._complete = True
            return
        self._waiting[int(event["step"])] = float(event["loss"])
        if (logged := self._logged) is None:
            return
        if known := sorted(self._waiting.keys() & logged.keys()):
            replayed = compared(known[0], self._waiting[known[0]], logged[known[0]])
            self.content = {**self.content, "replayed": replayed}
            self._say(verdict(replayed))
            self._start(self._put)
        self._complete = bool(known) or max(self._waiting) >= max(logged, default=0)
        self._waiting = {}

    def wait(self, seconds: float) -> None:
        """Until what is under way is stored, within a bound."""
        if self._thread is not None:
            self._thread.join(seconds)

    # ---- on the thread

    def _look_up(self) -> None:
        self._put()
        self._logged = logged_losses(self._store, self._owner.attempt, self._commit)

    def _put(self) -> None:
        self._store.put(self.key, json.dumps(self.content, indent=1).encode())

    def _start(self, work: Callable[[], None]) -> None:
        before = self._thread

        def guarded() -> None:
            if before is not None:
                before.join()
            try:
                work()
            except Exception as error:  # whatever a store does, it is only the receipt
                self._problem = f"{error}"

        self._thread = threading.Thread(target=guarded, daemon=True, name="resume-receipt")
        self._thread.start()

    def _digest(self, key: str) -> str | None:
        try:
            return hashlib.sha256(self._store.get(key)).hexdigest()
        except JobError:
            return None
