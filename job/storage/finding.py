"""What a probe found out, and what that means for a run: it works, something is lost, or no run can work."""

from dataclasses import dataclass
from enum import StrEnum

from job.errors import DataError, JobError, StorageError


class Status(StrEnum):
    OK = "ok"
    WARNING = "warning"  # a run works, and something is lost
    MISSING = "missing"  # a run cannot work
    NOT_TRIED = "not tried"


@dataclass(frozen=True)
class Finding:
    """One probe's outcome. `means`: for a run; `seen`: what was measured or answered; `action`: the permission."""

    name: str
    status: Status
    means: str
    seen: str = ""
    action: str = ""
    error: JobError | None = None


@dataclass(frozen=True)
class Probe:
    """`gives` and `without` say what it means for a run that it is there, or is not."""

    name: str
    gives: str
    without: str
    action: str = ""  # of an S3 policy
    needs: tuple[str, ...] = ()
    fatal: bool = True

    def ok(self, seen: str = "") -> Finding:
        return Finding(self.name, Status.OK, self.gives, seen, self.action)

    def lacking(self, error: JobError) -> Finding:
        status = Status.MISSING if self.fatal else Status.WARNING
        return Finding(self.name, status, self.without, str(error), self.action, error)


class Lacking(StorageError):
    """The store answers, and does something else than it should."""


class Lagging(Lacking):
    """It did it in the end, later than it should."""


def cannot_run(findings: list[Finding], uri: str) -> JobError | None:
    """The error to leave with when a run cannot work here: the first probe that is missing, and its permission."""
    first = next((finding for finding in findings if finding.status == Status.MISSING), None)
    if first is None:
        return None
    kind = type(first.error) if isinstance(first.error, JobError) else StorageError
    kind = StorageError if issubclass(kind, DataError | StorageError) else kind
    return kind(f"{uri} cannot hold a run: {first.name}: {first.seen}")
