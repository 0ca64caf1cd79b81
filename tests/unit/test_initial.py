"""What `model.init` may name, and how it has to agree with `lora`."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from job.config import RunConfig
from job.errors import ConfigError, DataError
from job.initial import check_initial, pull_initial, same_initial
from job.storage.cache import Cache
from job.storage.checkpoints import upload_folder
from job.storage.pull import Pull
from job.storage.records import RESULT, Result
from job.storage.store import ObjectStore, open_store
from tests.servers import Bucket

Q, V = "base_model.model.model.layers.0.self_attn.q_proj", "base_model.model.model.layers.0.self_attn.v_proj"
FIELDS = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}


def adapter(folder: Path, modules: tuple[str, ...] = (Q, V), **fields: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({**FIELDS, **fields}))
    tensors = {
        f"{name}.{side}.weight": np.zeros((2, 2), np.float32) for name in modules for side in ("lora_A", "lora_B")
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def model(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma"}))
    save_file({"w.weight": np.zeros((2, 2), np.float32)}, folder / "model.safetensors")
    return folder


def finished(store: ObjectStore, files: Path, kind: str) -> None:
    """A run whose result is of these files."""
    store.put("run.json", b"{}")
    result = Result(
        folder="final/0003", files=upload_folder(store, files, "final/0003"), kind=kind, chat=True, step=5, steps=5,
        best=None, attempt=3, commit=None, evaluations=[], base="/base", created="", versions={},
    )  # fmt: skip
    store.put(RESULT, result.dump())


def config(lora: dict[str, Any] | None, base: str = "/base", **peft: Any) -> RunConfig:
    tree = {"run": "/runs/one", "model": {"base": base, "init": "/init"}, "data": {"train": ["/d.jsonl"]}}
    return RunConfig.from_dict({**tree, "lora": lora, "peft": peft})


@pytest.fixture
def pull(tmp_path: Path) -> Pull:
    return Pull(Cache(tmp_path / "cache"))


AGREES = {"r": 8, "alpha": 16, "target_modules": ["q_proj", "v_proj"]}


# ---- what is pulled


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "place")
    bucket: Bucket = request.getfixturevalue("s3")
    return f"{bucket.uri}/place"


def test_an_adapters_folder_gives_its_two_files_and_their_hashes(place: str, pull: Pull, tmp_path: Path) -> None:
    files = adapter(tmp_path / "files")
    (files / "optimizer.pt").write_bytes(b"a pickle")
    upload_folder(open_store(place), files, "checkpoint-5")
    found = pull_initial(f"{place}/checkpoint-5", tmp_path / "init", pull)
    assert (found.kind, found.pulled.source) == ("adapter", f"{place}/checkpoint-5")
    names = ("adapter_config.json", "adapter_model.safetensors")
    assert found.pulled.files == {name: f"sha256:{_sha256(files / name)}" for name in names}
    for name in names:
        assert (found.pulled.path / name).read_bytes() == (files / name).read_bytes()


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_a_run_gives_the_files_of_its_result(place: str, pull: Pull, tmp_path: Path, kind: str) -> None:
    files = (adapter if kind == "adapter" else model)(tmp_path / "files")
    finished(open_store(place), files, kind)
    found = pull_initial(place, tmp_path / "init", pull)
    assert (found.kind, found.pulled.source) == (kind, f"{place}/final/0003")
    for name, digest in found.pulled.files.items():
        assert digest == f"sha256:{_sha256(found.pulled.path / name)}"
    again = pull_initial(found.pulled.source, tmp_path / "again", pull)  # as run.json pins it
    same_initial(found.pulled.files, again.pulled)


def test_full_weights_are_pulled_as_a_base_is(place: str, pull: Pull, tmp_path: Path) -> None:
    upload_folder(open_store(place), model(tmp_path / "files"), "weights")
    found = pull_initial(f"{place}/weights", tmp_path / "init", pull)
    assert found.kind == "full" and set(found.pulled.files) == {"config.json", "model.safetensors"}


def test_a_damaged_result_is_refused(place: str, pull: Pull, tmp_path: Path) -> None:
    store = open_store(place)
    finished(store, adapter(tmp_path / "files"), "adapter")
    config_json = store.get("final/0003/adapter_config.json").replace(b'"r": 8', b'"r": 9')
    store.put("final/0003/adapter_config.json", config_json)
    with pytest.raises(DataError, match=r"adapter_config.json is damaged"):
        pull_initial(place, tmp_path / "init", pull)


def test_what_is_nothing_to_start_from_is_said(place: str, pull: Pull, tmp_path: Path) -> None:
    store = open_store(place)
    store.put("notes.txt", b"")
    with pytest.raises(DataError, match=r"holds no adapter .* no run's result .* and no model"):
        pull_initial(place, tmp_path / "init", pull)
    store.put("run.json", b"{}")
    with pytest.raises(DataError, match="is a run that has no result yet; run it to its end first, or fork it"):
        pull_initial(place, tmp_path / "init", pull)


def test_an_adapter_that_is_a_pickle_is_never_opened(pull: Pull, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "files")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(DataError, match=r"has no adapter_model.safetensors; .* no pickle is opened"):
        pull_initial(str(folder), tmp_path / "init", pull)


def test_what_changed_since_the_run_began_is_refused(pull: Pull, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "files")
    before = pull_initial(str(folder), tmp_path / "init", pull).pulled
    same_initial(before.files, before)
    adapter(folder, r=9)
    now = pull_initial(str(folder), tmp_path / "init", pull).pulled
    with pytest.raises(DataError, match=r"adapter_config.json changed since this run began"):
        same_initial(before.files, now)


# ---- what it has to agree with


def checked(folder: Path, ours: RunConfig, pull: Pull) -> str | None:
    return check_initial(ours, pull_initial(str(folder), folder.parent / "init", pull))


@pytest.mark.parametrize(
    "lora",
    [
        AGREES,
        {**AGREES, "dropout": 0.3},
        {**AGREES, "target_modules": "all-linear"},  # held against the loaded model's names, by the rank
        {**AGREES, "target_modules": ".*(q|v)_proj"},
        {**AGREES, "target_modules": ["self_attn.q_proj", "v_proj"]},
    ],
    ids=str,
)
def test_a_config_that_agrees_passes(pull: Pull, tmp_path: Path, lora: dict[str, Any]) -> None:
    assert checked(adapter(tmp_path / "files"), config(lora), pull) is None


@pytest.mark.parametrize(
    ("lora", "theirs", "said"),
    [
        ({"target_modules": ["q_proj", "v_proj"]}, {}, "set lora.r: 8, lora.alpha: 16, or"),
        ({**AGREES, "target_modules": ["q_proj"]}, {}, 'set lora.target_modules: ["q_proj", "v_proj"], or'),
        ({**AGREES, "target_modules": ["q_proj", "v_proj", "o_proj"]}, {}, "set lora.target_modules: "),
        ({**AGREES, "target_modules": ".*q_proj"}, {}, "set lora.target_modules: "),
        (AGREES, {"use_rslora": True}, "set lora.use_rslora: true"),
        ({**AGREES, "use_dora": True}, {}, "set lora.use_dora: false"),
        ({**AGREES, "modules_to_save": ["lm_head"]}, {}, "set lora.modules_to_save: []"),
        (AGREES, {"alpha_pattern": {"q_proj": 4}}, 'set peft.alpha_pattern: {"q_proj": 4}'),
    ],
    ids=str,
)
def test_what_differs_is_said_with_what_to_set(
    pull: Pull, tmp_path: Path, lora: dict[str, Any], theirs: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        checked(adapter(tmp_path / "files", **theirs), config(lora), pull)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_nothing_by_default_is_no_difference(pull: Pull, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "files", bias="none", rank_pattern={}, modules_to_save=None, layers_to_transform=None)
    assert checked(folder, config(AGREES, bias="none"), pull) is None


def test_an_adapter_and_full_fine_tuning_do_not_go_together(pull: Pull, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is an adapter, and lora is null; set lora.r: 8, lora.alpha: 16, lora.targ"):
        checked(adapter(tmp_path / "files"), config(None), pull)
    with pytest.raises(ConfigError, match=r"holds full weights, and lora asks for an adapter; set model.base to it"):
        checked(model(tmp_path / "weights"), config(AGREES), pull)
    assert checked(model(tmp_path / "weights"), config(None), pull) is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"peft_type": "IA3"}, "of the kind IA3"), ({"init_lora_weights": "pissa"}, "which changed its base")],
)
def test_adapters_of_another_making_are_refused(pull: Pull, tmp_path: Path, fields: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        checked(adapter(tmp_path / "files", **fields), config(AGREES), pull)


def test_another_base_is_told_and_the_same_at_another_revision_is_not(pull: Pull, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "files", base_model_name_or_path="org/base")
    assert checked(folder, config(AGREES, "hf://org/base@main"), pull) is None
    told = checked(folder, config(AGREES, "hf://org/other"), pull)
    assert told is not None and "was trained on org/base, this run's base is hf://org/other" in told


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
