"""One run, hit once, started again as a scheduler would, and held against the run that was left alone."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from job.drill.outcome import Outcome, differences, outcome_of
from job.drill.plan import Blow, Case
from job.drill.starts import Started, start
from job.errors import ExitCode, error_for
from job.host.preemption import Stop
from job.report.wording import counted
from job.rundir import write_atomically
from job.settled import read_result
from job.storage.store import ObjectStore

AGAIN = (ExitCode.STOPPED, ExitCode.CRASHED)  # what a scheduler starts again here, beside what was killed
Doing = Callable[[str, str], None]  # hears what is done now: in a word, and in a line
NO_EXPERIMENT = (ExitCode.STORAGE, ExitCode.HARDWARE, ExitCode.CONFIG)  # the place failed, not the run


@dataclass(frozen=True)
class Facts:
    """What was seen in one experiment."""

    case: Case
    codes: list[int]  # of its starts
    hit: dict[str, Any] | None  # where the run stood; None: the phase was never reached
    resumed_step: int | None  # None: it did not have to resume
    lost_steps: int | None
    bound_steps: int | None  # what may be lost at most
    resume_seconds: float | None  # from the restart, or from the blow where ranks began again in place
    commits: int
    seconds: float
    problems: list[str]
    said: list[str] = field(default_factory=list)  # last lines of each start, where it failed

    @property
    def passed(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "case": self.case.name, "passed": self.passed}


@dataclass(frozen=True)
class Place:
    """Where one run of the drill lives."""

    config: Path
    home: Path
    store: ObjectStore


def make_place(folder: Path, config: str, store: ObjectStore) -> Place:
    folder.mkdir(parents=True)
    write_atomically(folder / "run.yaml", config)
    return Place(folder / "run.yaml", folder / "home", store)


def leave_alone(place: Place, stop: Stop, say: Callable[[str], None]) -> Outcome:
    """The reference. Raises: the error of the kind that it failed with; `say` gets its last lines then."""
    done = _start(place, stop, 1)
    if done.code != ExitCode.DONE:
        for text in done.said:
            say(f"  {text}")
        raise error_for(done.code, f"the tiny job fails even when it is left alone: {done.cause}")
    found = outcome_of(place.store, place.home / "outcome")
    if found is None or found.damage:
        damage = found.damage[0] if found else "it left with exit code 0 and committed no result"
        raise error_for(ExitCode.CRASHED, f"the tiny job fails even when it is left alone: {damage}")
    return found


def experiment(
    case: Case, place: Place, reference: Outcome, stop: Stop, doing: Doing = lambda word, text: None
) -> Facts:
    """Raises: StorageError, HardwareError where the place fails; Stopped."""
    doing("running", "begins, and runs until the blow falls")
    starts = [_start(place, stop, 1, case)]
    finished = [read_result(place.store) is not None]
    if starts[0].code in AGAIN or starts[0].code < 0:
        doing("again", f"left with {starts[0].code} after {starts[0].seconds:.0f} s, and runs again to its end")
        starts.append(_start(place, stop, 2))
        finished.append(read_result(place.store) is not None)
    found = outcome_of(place.store, place.home / "outcome")
    return judge(case, starts, finished, found, reference)


def _start(place: Place, stop: Stop, number: int, case: Case | None = None) -> Started:
    notes = place.home.with_name(f"notes-{number}")
    done = start(["job.drilled", place.config, notes, *([case.name] if case else [])], place.home, stop, notes)
    if done.code in NO_EXPERIMENT:
        raise error_for(done.code, done.cause)
    return done


def judge(
    case: Case, starts: Sequence[Started], finished: Sequence[bool], found: Outcome | None, reference: Outcome
) -> Facts:
    """`finished`: whether a result was committed at the end of each start."""
    hit = next((note for note in starts[0].notes if note["kind"] == "hit"), None)
    resumed, lost, seconds = resumption(starts, hit)
    bound = None if hit is None or resumed is None else allowed_loss(case.blow, hit)
    problems = list(exit_problems(case, starts, finished))
    if hit is None:
        problems.insert(0, f"{case.phase} was never hit, nothing was tried")
    if lost is not None and bound is not None and lost > bound:
        problems.append(f"{counted(lost, 'step')} {'was' if lost == 1 else 'were'} lost, at most {bound} may be")
    if hit is not None and resumed is None and len(starts) > 1:
        problems.append("nothing was seen of its resumption")
    problems += [f"still there after its end: {command}" for one in starts for command in one.left]
    problems += differences(found, reference) if found else []
    said = [f"start {number}| {line}" for number, one in enumerate(starts, 1) for line in one.said] if problems else []
    codes, spent = [one.code for one in starts], sum(one.seconds for one in starts)
    commits = found.commits if found else 0
    return Facts(case, codes, hit, resumed, lost, bound, seconds, commits, round(spent, 2), problems, said)


def allowed_loss(blow: Blow, hit: dict[str, Any]) -> int:
    """Nothing is lost where a stop was asked for. A rank's end spares what it had on the disk, a supervisor's what had
    been committed."""
    if blow.asks:
        return 0
    safe = max(hit["commit"], hit["snapshot"]) if blow == Blow.KILL_RANK else hit["commit"]
    return max(0, int(hit["step"]) - int(safe))


def resumption(starts: Sequence[Started], hit: dict[str, Any] | None) -> tuple[int | None, int | None, float | None]:
    """(step resumed from, steps done before and done again, seconds until the first of these or the end)."""
    if hit is None:
        return None, None, None
    before = [note for note in starts[0].notes if note["kind"] in ("training", "step", "finishing")]
    if len(starts) > 1:
        after, since = starts[1].notes, starts[1].began
    else:
        later = [at for at, note in enumerate(before) if note["kind"] == "training" and note["at"] > hit["at"]]
        after, since = before[later[0] :] if later else [], hit["at"]
        before = before[: later[0]] if later else before
    training = next((note for note in after if note["kind"] == "training"), None)
    going = next((note for note in after if note["kind"] in ("step", "finishing")), None)
    if training is None or going is None:
        return None, None, None
    reached = max([int(hit["step"]), *(int(note["step"]) for note in before)])
    resumed = int(training["step"])
    return resumed, max(0, reached - resumed), round(going["at"] - since, 2)


def exit_problems(case: Case, starts: Sequence[Started], finished: Sequence[bool]) -> list[str]:
    """Exit codes say what a scheduler has to do: 0 exactly when the result is committed."""
    problems = []
    for number, (one, done) in enumerate(zip(starts, finished, strict=True), 1):
        due = case.first_codes if number == 1 else {int(ExitCode.DONE)}
        if one.code not in due:
            wanted = " or ".join(str(int(code)) for code in sorted(due))
            problems.append(f"start {number} left with {one.code} where {wanted} was due: {one.cause}")
        if (one.code == ExitCode.DONE) != done:
            problems.append(f"start {number} left with {one.code}, and {'a' if done else 'no'} result is committed")
    if not finished[-1] and not problems:
        problems.append("it was never finished")
    return problems
