"""What can go wrong, and the exit code each cause leaves with."""

import errno
import traceback
from enum import IntEnum


class ExitCode(IntEnum):
    """The one table of exit codes; every scheduler's rules are rendered from it."""

    DONE = 0  # final/result.json is committed
    DATA = 65  # data, base model or all commits are wrong, missing or unreadable: never retry
    HARDWARE = 69  # hardware or disk space asked for is not there: retry elsewhere, counted
    CRASHED = 70  # a rank crashed or hung: retry, counted
    MEMORY = 71  # out of memory with the token budget at one row: never retry
    NO_PROGRESS = 73  # several attempts in a row died without a new commit: never retry
    STORAGE = 74  # object storage unreachable or refusing, after retries: retry, counted
    STOPPED = 75  # stopped on request; the last commit stands: run again, not a failure
    FENCED = 76  # a newer attempt owns the run: this one is over
    BUSY = 77  # another job is running this run: never retry
    CONFIG = 78  # the config or the command line is wrong, or is not this run's: never retry


class JobError(Exception):
    """An error whose message is one line a user can act on."""

    exit_code: ExitCode = ExitCode.CRASHED
    node_rank: int = 0  # the node that it arose on, where several take part


class ConfigError(JobError):
    """The config or the command line is wrong, or is not this run's."""

    exit_code = ExitCode.CONFIG


class DataError(JobError):
    """Data, base model or commits are wrong, missing or unreadable."""

    exit_code = ExitCode.DATA


class NotFinite(DataError):
    """The loss or gradient of a step is NaN or infinite."""


class HardwareError(JobError):
    """Hardware or disk space that was asked for is not there."""

    exit_code = ExitCode.HARDWARE


class OutOfMemory(JobError):
    """A single row does not fit into the device's memory."""

    exit_code = ExitCode.MEMORY


class StorageError(JobError):
    """Object storage cannot be reached or refuses, after all retries."""

    exit_code = ExitCode.STORAGE


class RankCrashed(JobError):
    """A rank ended by itself, by a signal, or with a traceback."""

    exit_code = ExitCode.CRASHED


class RankHung(RankCrashed):
    """The ranks took no step for much longer than they usually need."""


class NodeLost(RankCrashed):
    """A node's supervisor is gone, or cannot be reached any more."""


class NoProgress(JobError):
    """Several attempts in a row crashed, hung or vanished without a new commit."""

    exit_code = ExitCode.NO_PROGRESS


class Stopped(JobError):
    """A stop was requested; the last commit, if any, stands."""

    exit_code = ExitCode.STOPPED


class Fenced(JobError):
    """A newer attempt owns the run."""

    exit_code = ExitCode.FENCED


class Busy(JobError):
    """Another job is running this run."""

    exit_code = ExitCode.BUSY


def error_for(code: int, message: str) -> JobError:
    """The error class whose exit code is `code`, so that a rank's error leaves the supervisor as it left the rank."""
    for kind in (ConfigError, DataError, HardwareError, OutOfMemory, StorageError, NoProgress, Stopped, Fenced, Busy):
        if kind.exit_code == code:
            return kind(message)
    return RankCrashed(message)


def on_node(error: JobError, node_rank: int) -> JobError:
    """The same error, which says where it arose."""
    error.node_rank = node_rank
    return error


def node_rank_of(error: BaseException | None) -> int:
    """Of the node that the error, or what it was raised from, arose on."""
    while error is not None:
        if isinstance(error, JobError) and error.node_rank:
            return error.node_rank
        error = error.__cause__
    return 0


def no_space(error: BaseException, where: object) -> HardwareError | None:
    """What a full disk is called, whoever met it; None for any other error."""
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    return HardwareError(f"no space left on the filesystem of {error.filename or where}; free some, or use another")


def unprinted(error: OSError) -> HardwareError | None:
    """What it is called where it was met in printing, not in writing a file; None elsewhere."""
    if not any(frame.name == "echo" for frame in traceback.extract_tb(error.__traceback__)):
        return None
    return HardwareError(f"what was to be printed could not be written: {(error.strerror or str(error)).lower()}")
