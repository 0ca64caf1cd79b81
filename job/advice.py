"""What to do where a config is not its run's: the very command that goes on, or begins anew, under the changed one.

The store is looked at for it (is there a result, which folder is free): briefly, and where it does not answer the
advice does without.
"""

import shlex
from collections.abc import Mapping, Sequence

from job.config import BucketOptions, RunConfig
from job.config.changes import needs_new_start, next_folder, settings
from job.config.trajectory import changed
from job.errors import JobError
from job.storage.records import RESULT, Result, RunRecord
from job.storage.store import open_store

LOOK_SECONDS = 5.0
FOLDERS = 50  # looked at


def way_on(config: RunConfig, record: RunRecord) -> str:
    """How to go on from the run in `config.run` under the changed config."""
    paths, to = changed(config, record.trajectory), free_folder(config.run, config.storage)
    if needs_new_start(paths):
        return instead_of_fork(config, record, config.run, to, result_of(config.run, config.storage))
    command = _command(f"sft-job fork {shlex.quote(config.run)} --to {shlex.quote(to)}", config, record, paths)
    return f"go on from its newest commit under this config: {command}"


def instead_of_fork(config: RunConfig, record: RunRecord, run: str, to: str, result: Result | None) -> str:
    """What to do where fields that no fork may change have to be others. `to`: where a new run could lie."""
    paths = changed(config, record.trajectory)
    fixed = needs_new_start(paths)
    named = ", ".join(path for path in fixed if not ("lora" in fixed and path.startswith("lora.")))
    begin = f"sft-job run {shlex.quote(run)} --set {shlex.quote(f'run={to}')}"
    anew = _command(begin, config, record, paths)
    if any(path.startswith(("lora", "peft")) for path in fixed):
        if record.config.get("lora") is not None:
            return f"leave the adapter as it is ({named}), or begin anew, without what this run has learned: {anew}"
        what = "a new run with an adapter on its result"
        start = [f"model.base={run.rstrip('/')}/{result.folder}" if result else "", "model.init=null"]
    elif "model.init" in fixed:
        return f"begin a new run (no fork may change {named}): {anew}"
    else:
        what = "a new run from its result, with a fresh optimizer"
        start = [f"model.init={run}"]
    if result is None:
        return (
            f"run it to its end first, as no fork may change {named} and it has no result to start from yet; or begin "
            f"anew: {anew}"
        )
    other = "; leave model.init out where the other base has other layers" if "model.base" in fixed else ""
    return f"begin {what} (no fork may change {named}{other}): {_command(begin, config, record, paths, start)}"


def free_folder(run: str, buckets: Mapping[str, BucketOptions]) -> str:
    """The first folder beside this run's, by number, that holds nothing; where nobody can look, the first of all."""
    place = next_folder(run)
    try:
        for _ in range(FOLDERS):
            if not open_store(place, buckets, LOOK_SECONDS).list(""):
                return place
            place = next_folder(place)
    except JobError:
        pass
    return next_folder(run)


def result_of(run: str, buckets: Mapping[str, BucketOptions]) -> Result | None:
    """None where there is none that can be read."""
    try:
        return Result.parse(open_store(run, buckets, LOOK_SECONDS).get(RESULT), RESULT)
    except JobError:
        return None


def _command(begin: str, config: RunConfig, record: RunRecord, paths: Sequence[str], more: Sequence[str] = ()) -> str:
    """With the changed fields, then `more`, which win."""
    names = {setting.partition("=")[0] for setting in more}
    changes = [one for one in settings(config, record.config, paths) if one.partition("=")[0] not in names]
    return " ".join([begin, *(f"--set {shlex.quote(setting)}" for setting in [*changes, *more])])
