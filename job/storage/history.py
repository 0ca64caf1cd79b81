"""What the attempts before made of this run: which of them died without getting it further, how long they lived."""

from collections.abc import Sequence
from dataclasses import dataclass

from job.errors import DataError, ExitCode, NoProgress
from job.storage.attempts import Owner, attempts
from job.storage.checkpoints import commit_keys
from job.storage.identity import whose
from job.storage.records import COMMIT_KEY, AttemptRecord, BeatRecord, EndRecord
from job.storage.store import ObjectStore

LOOK_BACK = 10  # attempts; each costs a request or two
FUTILE_ATTEMPTS = 3  # in a row, before the run is refused
NO_INTERRUPTION = (ExitCode.DONE, ExitCode.CONFIG, ExitCode.DATA, ExitCode.MEMORY)


@dataclass(frozen=True)
class Past:
    """One attempt that is over."""

    owner: Owner
    code: int | None  # None: it vanished, and nobody wrote how it ended
    reason: str
    stepped: bool
    seconds: float  # from its claim to its end, or to its last heartbeat
    committed: bool
    step: int = 0  # of the commit that it says it ended on

    @property
    def futile(self) -> bool:
        """It crashed, hung or vanished after its first step and left nothing. A recorded preemption never is."""
        return self.stepped and not self.committed and self.code in (None, ExitCode.CRASHED)

    @property
    def interrupted(self) -> bool:
        """It ended before the run was finished, for a reason that may come again."""
        return self.code not in NO_INTERRUPTION


def history(store: ObjectStore, look_back: int = LOOK_BACK) -> list[Past]:
    """The latest attempts, newest first; call it when all are over. Raises: StorageError."""
    owners = attempts(store)[::-1][:look_back]
    committed = {(int(match[1]), match[3] or "") for key in commit_keys(store) if (match := COMMIT_KEY.fullmatch(key))}
    return [_past(store, owner, (owner.attempt, owner.nonce) in committed) for owner in owners]


def _past(store: ObjectStore, owner: Owner, committed: bool) -> Past:
    try:
        end = EndRecord.parse(store.get(owner.end_key), owner.end_key)
        return Past(owner, end.code, end.reason, end.stepped, end.seconds, committed, end.step)
    except DataError:  # it is not there, or cannot be read
        pass
    try:
        beat = BeatRecord.parse(store.get(owner.beat_key), owner.beat_key)
    except DataError:
        return Past(owner, None, "vanished", False, 0.0, committed)
    return Past(owner, None, "vanished", beat.stepped, beat.seconds, committed)


def refuse_futile(store: ObjectStore, past: Sequence[Past], config: dict[str, object], version: str) -> None:
    """Raises: NoProgress when the last attempts, with this very config and version, all died without a commit.

    Preempted ones in between say nothing. A changed config or version is a reason to try anew.
    """
    futile: list[Past] = []
    for one in past:
        if one.committed:
            break
        if not one.futile:
            continue
        if not _same(store, one.owner, config, version):
            break
        futile.append(one)
        if len(futile) == FUTILE_ATTEMPTS:
            numbers = [str(each.owner.attempt) for each in reversed(futile)]
            reasons = list(dict.fromkeys(each.reason for each in futile))
            raise NoProgress(
                f"attempts {', '.join(numbers[:-1])} and {numbers[-1]} of {store.uri} took steps and died without a "
                f"new commit ({'; '.join(reasons)}); see {_where_to_look(store, futile)}; mend the cause, then change "
                "the config or insist with --try-again"
            )


def refuse_lost(uri: str, past: Sequence[Past]) -> None:
    """For a run without any commit. Raises: DataError when an attempt says that it ended on one: that was deleted."""
    if (lost := next((one for one in past if one.step > 0), None)) is not None:
        raise DataError(
            f"{uri} has no commit, though attempt {lost.owner.attempt} ended on one of step {lost.step} "
            f"({lost.owner.end_key}): restore what was deleted, or begin anew in another run folder"
        )


def _where_to_look(store: ObjectStore, futile: Sequence[Past]) -> str:
    """The newest log that one of them left, else who ran the last one."""
    for one in futile:
        left = (entry.key for entry in store.list(f"attempts/{one.owner.name}-"))
        if log := next((key for key in left if key.endswith((".log", "-stacks.txt"))), None):
            return f"{store.uri}/{log}"
    newest = futile[0].owner
    try:
        record = AttemptRecord.parse(store.get(newest.key), newest.key)
    except DataError:
        record = None
    return f"the log of the job that ran attempt {newest.attempt} on {whose(record)}"


def _same(store: ObjectStore, owner: Owner, config: dict[str, object], version: str) -> bool:
    try:
        record = AttemptRecord.parse(store.get(owner.key), owner.key)
    except DataError:
        return True
    return record.config == config and record.version == version
