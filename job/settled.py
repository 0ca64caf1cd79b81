"""What makes a folder a run: `run.json`, written before the first commit, with every field that decides the trajectory.

Not before: a mistake that only the ranks find (a LoRA pattern that matches no module) is corrected in the same folder.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from job import __version__
from job.advice import way_on
from job.config import RunConfig, load_config, trajectory, trajectory_diff, trajectory_digest, with_sets
from job.errors import ConfigError, StorageError
from job.host.gpus import computes_bf16
from job.host.topology import Topology
from job.inputs import Inputs
from job.rundir import RunDir
from job.storage.attempts import Owner, check_fence
from job.storage.checkpoints import upload_folder
from job.storage.records import FORK, RESULT, RUN, PreparedRecord, Result, RunRecord
from job.storage.store import NotFound, ObjectStore, open_store


def load(run_or_yaml: str, sets: Sequence[str] = (), variables: Mapping[str, str] = os.environ) -> RunConfig:
    """The config of a RUN.yaml, or of a run folder that has begun, `${NAME}` from `variables`. Raises: ConfigError."""
    if run_or_yaml.endswith((".yaml", ".yml")):
        return load_config(Path(run_or_yaml), sets, variables)
    record = read_run(open_store(run_or_yaml))
    if record is None:
        raise ConfigError(f"{run_or_yaml} is neither a .yaml file nor a run folder with a run.json")
    # The folder may have been moved, or its path been relative to another working directory.
    return with_sets(RunConfig.from_dict(record.config).replace({"run": run_or_yaml}), sets, variables)


def settle(config: RunConfig, record: RunRecord | None, machine: Topology) -> RunConfig:
    """The config with its deciding `auto`s written out: as the run settled them, else as this machine has it.

    A run that began in bf16 stays in bf16 wherever it goes on. What `auto` says of the data is settled by the
    prepared rows.
    """
    if record is not None:
        return as_settled(config, record)
    if config.model.precision != "auto":
        return config
    return config.replace({"model.precision": "bf16" if machine.device == "cuda" and computes_bf16() else "fp32"})


def as_settled(config: RunConfig, record: RunRecord) -> RunConfig:
    """The config, its deciding `auto`s as the run settled them."""
    ours = trajectory(config)
    return config.replace({path: at for path, at in record.trajectory.items() if ours.get(path) == "auto" != at})


def store_rows(store: ObjectStore, owner: Owner, inputs: Inputs, local: RunDir) -> None:
    """The prepared rows, for whoever needs them; a folder that holds no more than them is no run yet."""
    folder = f"prepared/{inputs.fingerprint}/{owner.name}"
    key, files = f"prepared/{inputs.fingerprint}.json", upload_folder(store, local.prepared, folder)
    store.put_if_absent(key, PreparedRecord(folder=folder, files=files).dump())


def begin(
    config: RunConfig, store: ObjectStore, owner: Owner, inputs: Inputs, local: RunDir, rows_stored: bool = False
) -> RunRecord:
    """Write what makes this folder a run, unless an earlier attempt did: prepared rows, then `run.json`.

    `rows_stored`: this attempt did that already.
    """
    if (record := read_run(store)) is not None:
        refuse_another_run(config, record)
        return record
    if not rows_stored:
        store_rows(store, owner, inputs, local)
    check_fence(store, owner)
    record = RunRecord(
        config=config.to_dict(),
        trajectory=trajectory(config),
        digest=trajectory_digest(config),
        prepared=inputs.fingerprint,
        base=inputs.base,
        base_source=inputs.base_source,
        tokenizer_source=inputs.tokenizer_source,
        version=__version__,
        init=inputs.init,
        init_source=inputs.init_source,
    )
    if store.put_if_absent(RUN, record.dump()):
        return record
    raise StorageError(f"another attempt began {store.uri} at the same moment; run the same command again")


def read_run(store: ObjectStore) -> RunRecord | None:
    """None: the folder is no run yet. Raises: ConfigError when it is to become a fork: only `fork` may finish that."""
    try:
        return RunRecord.parse(store.get(RUN), f"{store.uri}/{RUN}")
    except NotFound:
        pass
    try:
        store.get(FORK)
    except NotFound:
        return None
    raise ConfigError(
        f"{store.uri} holds a fork that was begun and not finished; run the same `sft-job fork` again, "
        "or use another folder"
    )


def read_result(store: ObjectStore) -> Result | None:
    try:
        return Result.parse(store.get(RESULT), f"{store.uri}/{RESULT}")
    except NotFound:
        return None


def refuse_another_run(config: RunConfig, record: RunRecord) -> None:
    """Raises: ConfigError with the deciding fields that differ, and the command that goes on anyway."""
    if differences := trajectory_diff(config, record.trajectory):
        raise ConfigError(
            f"{config.run} is another run: {'; '.join(differences)}. Put these fields back, set `run` to a new folder, "
            f"or {way_on(config, record)}"
        )
