"""The JSON records of a run folder, and the keys they stand under. They cross a trust boundary, so they are checked."""

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from job.errors import DataError

RUN, RESULT, FORK = "run.json", "final/result.json", "fork.json"
ATTEMPT_KEY = re.compile(r"attempts/(\d{4,})(?:-([0-9a-f]{12}))?\.json")
COMMIT_KEY = re.compile(r"commits/(\d{4,})-(\d{8,})(?:-([0-9a-f]{12}))?\.json")


class Record(BaseModel):
    """A record of the run folder; a newer version's extra fields are kept out of the way."""

    # An evaluation may be NaN or infinite, and has to come back as it was: null would be neither.
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")

    @classmethod
    def parse(cls, data: bytes, where: str) -> Self:
        """Raises: DataError naming the record when it is not what it should be."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            problem = error.errors()[0]
            place = ".".join(str(part) for part in problem["loc"])
            raise DataError(f"{where} is damaged: {place + ': ' if place else ''}{problem['msg']}") from error

    def dump(self) -> bytes:
        return self.model_dump_json(indent=1).encode()


def _stays_below(name: str) -> str:
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise ValueError("a file's name must be a relative path that stays below its folder")
    return name


class FileRecord(Record):
    name: Annotated[str, AfterValidator(_stays_below)]
    size: int  # bytes
    sha256: str  # hex
    crc64nvme: str | None = None  # as in store.Entry; what a store can be asked about without reading the file


class Origin(Record):
    """Where a forked run, and its first commit, come from."""

    run: str
    commit: str  # key in that run
    digest: str  # SHA-256, hex, of that commit's record


class ForkRecord(Record):
    """`fork.json`: this folder is to become a fork. All that is written for it follows from this record."""

    origin: Origin
    config: dict[str, Any]
    prepared: str  # fingerprint
    version: str
    created: str


class RunRecord(Record):
    """`run.json`: what this run is. Written once, before the first commit."""

    config: dict[str, Any]
    trajectory: dict[str, Any]  # the fields that decide the trajectory, by dotted path
    digest: str  # of `trajectory`
    prepared: str  # fingerprint
    base: dict[str, str]  # file name -> digest of the base's weights
    base_source: str  # the base with its revision pinned
    tokenizer_source: str  # likewise
    version: str
    init: dict[str, str] = {}  # file name -> digest of what `model.init` names
    init_source: str | None = None  # its folder, the revision pinned
    origin: Origin | None = None  # of a fork


class PreparedRecord(Record):
    """`prepared/<fingerprint>.json`: which files hold the prepared rows."""

    folder: str
    files: list[FileRecord]


class AttemptRecord(Record):
    """`attempts/0007.json`: who runs the run. The nonce tells two claims of one number apart."""

    attempt: int
    nonce: str
    host: str
    process: dict[str, Any]  # boot id, pid namespace, pid and start time: is it still there?
    scheduler: dict[str, str]  # ids of the job that started it
    created: str
    version: str
    config: dict[str, Any]


class EndRecord(Record):
    """`attempts/0007-end.json`: how an attempt ended."""

    code: int
    reason: str
    step: int  # of its newest commit
    created: str
    stepped: bool = False  # it got past its first step
    seconds: float = 0.0  # from its claim to its end, by its own clock


class BeatRecord(Record):
    """`attempts/0007-beat.json`: changes every few seconds while the attempt lives."""

    count: int
    stepped: bool = False
    seconds: float = 0.0  # since its claim, by its own clock
    time: str = ""


class Commit(Record):
    """`commits/0007-00001200.json`: the commit. A checkpoint without it does not exist."""

    attempt: int
    nonce: str
    step: int
    folder: str
    files: list[FileRecord]
    parent: str | None
    run_digest: str
    prepared: str
    evaluations: list[dict[str, Any]]
    world_size: int
    strategy: str
    versions: dict[str, str]
    created: str
    origin: Origin | None = None  # of a fork's first commit


class Result(Record):
    """`final/result.json`: the run is finished, and this folder is what it made."""

    folder: str
    files: list[FileRecord]
    kind: str  # "adapter" | "full"
    chat: bool
    step: int  # of the published weights
    steps: int  # that the run took
    best: dict[str, Any] | None  # evaluation
    attempt: int
    commit: str | None  # the newest
    evaluations: list[dict[str, Any]]
    base: str
    created: str
    versions: dict[str, str]
