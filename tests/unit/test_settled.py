"""What makes a folder a run is written once and decides everything after; another run is refused by field."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from job.config import RunConfig
from job.errors import ConfigError, DataError, ExitCode, Fenced, StorageError
from job.host.topology import Topology
from job.inputs import Inputs
from job.rundir import RunDir
from job.settled import begin, load, read_result, read_run, refuse_another_run, settle
from job.storage.attempts import Owner
from job.storage.checkpoints import download_files
from job.storage.memory import MemoryStore
from job.storage.records import FORK, RUN, PreparedRecord, RunRecord
from job.storage.store import ObjectStore, open_store
from tests.committing import claimed, refusing
from tests.hooked_store import HookedStore

CPU = Topology("cpu", 1, "single")
INPUTS = Inputs("f1", {"model.safetensors": "d"}, "/base", "/base", chat=True)


def config(run: str = "/runs/one", **fields: Any) -> RunConfig:
    raw = {"run": run, "model": {"base": "/base", "precision": "fp32"}, "data": {"train": ["/d.jsonl"]}, "lora": {}}
    return RunConfig.from_dict({**raw, **fields})


@pytest.fixture
def local(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "local").make()
    run.prepared.mkdir()
    (run.prepared / "train.arrow").write_bytes(b"rows")
    (run.prepared / "summary.json").write_bytes(b"{}")
    return run


def begun(store: ObjectStore, local: RunDir, by: Owner | None = None, of: RunConfig | None = None) -> RunRecord:
    return begin(of or config(), store, by or claimed(store), INPUTS, local)


# ---- begin


def test_the_record_comes_back_and_its_prepared_rows_with_it(
    any_store: ObjectStore, local: RunDir, tmp_path: Path
) -> None:
    record = begun(any_store, local)
    assert read_run(any_store) == record
    assert RunConfig.from_dict(record.config) == config()
    assert (record.prepared, record.base, record.base_source) == ("f1", INPUTS.base, INPUTS.base_source)
    prepared = PreparedRecord.parse(any_store.get("prepared/f1.json"), "")
    download_files(any_store, prepared.folder, prepared.files, tmp_path / "down")
    assert (tmp_path / "down" / "train.arrow").read_bytes() == b"rows"


def test_a_later_attempt_takes_the_record_that_is_there_and_writes_nothing(local: RunDir) -> None:
    store = MemoryStore()
    first = begun(store, local)
    second = claimed(store, 2)
    before = store.list("")
    assert begun(store, local, second) == first
    assert store.list("") == before


def test_another_runs_config_is_refused_with_the_fields_that_differ(local: RunDir) -> None:
    store = MemoryStore()
    begun(store, local)
    other = config(train={"seed": 7}, lora={"r": 8})
    with pytest.raises(ConfigError) as caught:
        begun(store, local, claimed(store, 2), other)
    for part in ("train.seed: 7 here", "lora.r: 8 here", "is another run"):
        assert part in str(caught.value)
    assert caught.value.exit_code == ExitCode.CONFIG and "\n" not in str(caught.value)


def refusal(of: RunConfig, local: RunDir, **fields: Any) -> str:
    record = begin(of, (store := MemoryStore()), claimed(store), INPUTS, local)
    with pytest.raises(ConfigError) as caught:
        refuse_another_run(of.replace({path.replace("__", "."): value for path, value in fields.items()}), record)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_refusal_ends_in_the_very_command_that_forks_the_run(local: RunDir) -> None:
    of = config("/runs/one's")
    said = refusal(of, local, train__learning_rate=1e-3, trl={"adam_beta1": 0.8})
    command = shlex.split(said[said.index("sft-job fork") :])
    assert command == [
        *("sft-job", "fork", "/runs/one's", "--to", "/runs/one's-2"),
        *("--set", "train.learning_rate=0.001", "--set", 'trl={"adam_beta1": 0.8}'),
    ]


def test_where_no_fork_fits_the_refusal_names_no_fork(local: RunDir) -> None:
    other_base = refusal(config(), local, model__base="/other")
    assert "sft-job fork" not in other_base and "sft-job run /runs/one --set run=/runs/one-2" in other_base


def test_fields_that_do_not_decide_the_trajectory_may_differ(local: RunDir) -> None:
    record = begun(MemoryStore(), local)
    refuse_another_run(config(checkpoint={"keep": 9}, parallel={"device": "cpu"}, run="/runs/moved"), record)


def test_a_crash_at_any_operation_leaves_no_run_or_a_whole_one(local: RunDir, tmp_path: Path) -> None:
    crashes = 0
    for at in range(100):
        inner = MemoryStore()
        by, count = claimed(inner), iter(range(100))

        def crash(operation: str, key: str, at: int = at, count: Any = count) -> None:
            if next(count) == at:
                raise KeyboardInterrupt

        try:
            begun(HookedStore(inner, before=crash), local, by)
        except KeyboardInterrupt:
            crashes += 1
            assert read_run(inner) is None
        else:
            break
        record = begun(inner, local, claimed(inner, 2))
        prepared = PreparedRecord.parse(inner.get(f"prepared/{record.prepared}.json"), "")
        download_files(inner, prepared.folder, prepared.files, tmp_path / f"down-{at}")
    assert crashes >= 5


def test_a_newer_attempt_ends_the_beginning(local: RunDir) -> None:
    store = HookedStore(MemoryStore())
    by = claimed(store)

    def overtake(operation: str, key: str) -> None:
        if operation == "upload":
            claimed(store.inner, 2)

    store.after = overtake
    with pytest.raises(Fenced):
        begun(store, local, by)
    assert read_run(store) is None


def test_whoever_begins_second_at_the_same_moment_begins_nothing(local: RunDir) -> None:
    store = HookedStore(MemoryStore())
    theirs = begun(MemoryStore(), local, of=config(train={"seed": 7}))

    def overtake(operation: str, key: str) -> None:
        if operation == "put_if_absent" and key == RUN:
            store.inner.put(RUN, theirs.dump())

    store.before = overtake
    with pytest.raises(StorageError, match="at the same moment"):
        begun(store, local)
    assert read_run(store) == theirs


# ---- settle


def test_auto_becomes_what_this_machine_has_and_what_is_given_stays() -> None:
    auto = config(model={"base": "/base"})
    assert settle(auto, None, CPU).model.precision == "fp32"
    assert settle(config(model={"base": "/base", "precision": "bf16"}), None, CPU).model.precision == "bf16"


def test_a_run_keeps_the_precision_it_began_with(local: RunDir) -> None:
    record = begun(MemoryStore(), local, of=config(model={"base": "/base", "precision": "bf16"}))
    assert settle(config(model={"base": "/base"}), record, CPU).model.precision == "bf16"


def test_what_is_given_against_the_record_is_left_to_be_refused(local: RunDir) -> None:
    record = begun(MemoryStore(), local, of=config(model={"base": "/base", "precision": "bf16"}))
    settled = settle(config(), record, CPU)
    assert settled.model.precision == "fp32"
    with pytest.raises(ConfigError, match=r"model.precision: fp32 here, bf16 in run.json"):
        refuse_another_run(settled, record)


# ---- read


def test_a_folder_that_is_no_run_yet_has_neither_record_nor_result(any_store: ObjectStore) -> None:
    assert read_run(any_store) is None and read_result(any_store) is None


def test_a_fork_that_is_not_whole_is_no_folder_to_begin_in(any_store: ObjectStore) -> None:
    any_store.put(FORK, b"{}")
    with pytest.raises(ConfigError, match=r"run the same `sft-job fork` again"):
        read_run(any_store)


def test_a_store_that_refuses_is_never_a_folder_without_a_run() -> None:
    store = HookedStore(MemoryStore(), before=refusing({"get"}))
    for read in (read_run, read_result):
        with pytest.raises(StorageError):
            read(store)


def test_a_damaged_record_is_said_with_its_place() -> None:
    store = MemoryStore("some-run")
    store.put(RUN, b"{}")
    with pytest.raises(DataError, match=r"memory://some-run/run.json is damaged"):
        read_run(store)


def test_a_run_folder_can_be_given_in_place_of_its_config(local: RunDir, tmp_path: Path) -> None:
    place = str(tmp_path / "run")
    begun(open_store(place), local, of=config(place))
    assert load(place) == config(place)
    assert load(place, ["train.seed=9"]).train.seed == 9


def test_a_run_folder_that_was_moved_is_run_where_it_is_now(local: RunDir, tmp_path: Path) -> None:
    begun(open_store(str(tmp_path / "now")), local, of=config("before"))
    assert load(str(tmp_path / "now")).run == str(tmp_path / "now")


def test_a_folder_without_a_run_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"neither a .yaml file nor a run folder"):
        load(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()
