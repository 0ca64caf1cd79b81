"""What holds in every state of a run folder, whoever dies right there.

Each is asked of the product's own reader, on a copy of the store, as a later attempt would ask; the order of commits is
the simulation's own: an attempt's place among the claims, then the step.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from job.errors import Fenced, JobError
from job.settled import read_result, read_run
from job.storage.attempts import Owner, check_fence
from job.storage.checkpoints import download_files, restore
from job.storage.memory import MemoryStore
from job.storage.records import RESULT, RUN, PreparedRecord
from tests.simulation.actors import FINGERPRINT, Stage
from tests.simulation.content import snapshot_files

RECORD = re.compile(r"run\.json|final/result\.json|prepared/[^/]+\.json|commits/\d[^/]*\.json|attempts/\d{4}\.json")
Place = tuple[int, str, int]  # of a commit: attempt, nonce where numbers are shared, step


def place(owner: Owner, step: int) -> Place:
    return owner.attempt, "" if owner.conditional else owner.nonce, step


class Broken(AssertionError):
    """A promise is broken in this state."""


class Readers:
    """What later attempts find, remembered by what they look at."""

    def __init__(self, folder: Path, conditional: bool) -> None:
        self._folder, self._conditional = folder, conditional
        self._newest: dict[object, Place | None] = {}
        self._whole: set[object] = set()
        self._finishable: set[object] = set()
        self.restores = 0

    def newest(self, store: MemoryStore) -> Place | None:
        """Where a fresh attempt goes on; None: at the beginning. Raises: Broken."""
        seen = _below(store, "commits/", "checkpoints/")
        if seen not in self._newest:
            self._newest[seen] = self._restore(store.copy())
            self.restores += 1
        return self._newest[seen]

    def _restore(self, store: MemoryStore) -> Place | None:
        said: list[str] = []
        try:
            found = restore(store, 99, self._folder / "resume", said.append)
        except JobError as error:
            raise Broken(f"a later attempt cannot go on: {error}") from error
        if said:
            raise Broken(f"a commit is not whole: {said[0]}")
        if found is None:
            return None
        commit = found[1]
        owner = Owner(commit.attempt, commit.nonce, self._conditional)
        texts = {file.name: (self._folder / "resume" / file.name).read_text() for file in commit.files}
        if texts != snapshot_files(owner, commit.step):
            raise Broken(f"{found[0]} holds another commit's files")
        return place(owner, commit.step)

    def check_results(self, store: MemoryStore) -> None:
        """`final/` and `prepared/`: whole and of one attempt, from the moment their record is there."""
        seen = _below(store, "final/", "prepared/", RUN)
        if seen in self._whole:
            return
        result = read_result(store)
        if result is not None:
            self._check_folder(store, result.folder, result.files, RESULT)
            told = json.loads(store.get(f"{result.folder}/provenance.json"))
            if told["attempt"] != result.attempt or told["commit"] != result.commit:
                raise Broken(f"{RESULT} and its provenance are of two attempts")
            weights = store.get(f"{result.folder}/adapter_model.safetensors").decode()
            if not weights.startswith(f"attempt {result.attempt} ("):
                raise Broken(f"{RESULT} of attempt {result.attempt} names the weights of {weights}")
        key = f"prepared/{FINGERPRINT}.json"
        if read_run(store) is not None and not store.list(key):
            raise Broken("the run has begun without prepared rows")
        if store.list(key):
            prepared = PreparedRecord.parse(store.get(key), key)
            self._check_folder(store, prepared.folder, prepared.files, key)
            if len({store.get(f"{prepared.folder}/{file.name}") for file in prepared.files}) != 1:
                raise Broken(f"{key} names rows of two attempts")
        self._whole.add(seen)

    def check_finishable(self, store: MemoryStore, stage: Stage, newest: Place | None) -> None:
        """One more attempt goes on from what was acknowledged, and finishes the run."""
        seen = (_below(store, "commits/0", "checkpoints/", "final/", "prepared/", RUN), newest)
        if seen in self._finishable:
            return
        copy = store.copy()
        notes = {note.kind: note.value for note in stage.finish(copy)}
        if notes.get("wrong") or notes["ended"] != "done" or read_result(copy) is None:
            raise Broken(f"one more attempt does not finish the run: {notes}")
        found = place(*notes["restored"]) if notes.get("restored") else None
        if "restored" in notes and newest is not None and (found is None or found < newest):
            raise Broken(f"one more attempt goes on from {found}, though {newest} was acknowledged")
        self.check_results(copy)
        self._finishable.add(seen)

    def _check_folder(self, store: MemoryStore, folder: str, files: list, key: str) -> None:
        try:
            download_files(store, folder, files, self._folder / "files")
        except JobError as error:
            raise Broken(f"{key} names files that are not there or not whole: {error}") from error
        if {f"{folder}/{file.name}" for file in files} != {entry.key for entry in store.list(f"{folder}/")}:
            raise Broken(f"{key} does not name all files of {folder}")


def check_kept(before: MemoryStore, after: MemoryStore, key: str) -> None:
    """A record is never replaced by another: whoever read it may have gone on from what it said."""
    if before is after or not RECORD.fullmatch(key):
        return
    was, now = ([store.get(entry.key) for entry in store.list(key)] for store in (before, after))
    if was and now and was != now:
        raise Broken(f"{key} was replaced by another")


def check_owners(store: MemoryStore, owners: Iterable[Owner]) -> None:
    """Of all attempts that were told they own the run at most one still may write a result."""
    owners = list(owners)
    if len({owner.key for owner in owners}) != len(owners):
        raise Broken(f"two attempts were given the same place: {sorted(owner.key for owner in owners)}")
    unfenced = [owner.name for owner in owners if not _fenced(store, owner)]
    if len(unfenced) > 1:
        raise Broken(f"attempts {', '.join(unfenced)} both own the run")


def _fenced(store: MemoryStore, owner: Owner) -> bool:
    try:
        check_fence(store, owner)
    except Fenced:
        return True
    return False


def _below(store: MemoryStore, *prefixes: str) -> frozenset[tuple[str, str]]:
    return frozenset((entry.key, entry.etag) for prefix in prefixes for entry in store.list(prefix))
