"""What a node that does not lead brings is what the leader has, or it leaves and says which file is another."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from job.brought import Brought, same
from job.config import RunConfig
from job.errors import ConfigError, DataError, Stopped
from job.host.gang_messages import Begin
from job.inputs import Inputs
from job.nodes import tell_nodes
from job.rundir import RunDir
from job.storage.attempts import Owner
from job.storage.memory import MemoryStore
from job.storage.pull import Pulled
from job.tiny import make
from tests.hooked_store import HookedStore


class Quiet:
    """A listener."""

    def message(self, text: str) -> None: ...
    def pulling(self, description: str, done: int, total: int | None) -> None: ...
    def handle(self, events: list[dict[str, object]]) -> None: ...


class Heard:
    """A crew of which only the words of the attempt are kept."""

    several = True

    def __init__(self) -> None:
        self.begins: list[Begin] = []

    def begin(self, begin: Begin) -> None:
        self.begins.append(begin)


@dataclass
class Scene:
    """A leader's run folder and inputs, and a node's own disk."""

    config: RunConfig
    store: HookedStore
    leader: RunDir
    node: RunDir
    asked: list[str]

    def told(self, fingerprint: str = "f1", **other: Any) -> Begin:
        """As the leader tells it, its rows stored."""
        (self.leader.prepared / "train.arrow").write_bytes(f"rows of {fingerprint}".encode())
        base = self.config.model.base
        files, tokenizer = sizes(base, "config.json", "model.safetensors"), sizes(base, "tokenizer.json")
        crew, inputs = Heard(), Inputs(fingerprint, files, base, base, chat=True, tokenizer=tokenizer)
        tell_nodes(crew, self.config, self.store.inner, Owner(1, "n1"), inputs, self.leader)  # type: ignore[arg-type]
        return crew.begins[0].model_copy(update=other)

    def brought(self, stopped: bool = False) -> Brought:
        return Brought(self.config, None, self.store, self.node, lambda: stopped, Quiet())


def sizes(base: str, *names: str) -> dict[str, str]:
    """The digests of files that are read in place."""
    return {name: f"size:{(Path(base) / name).stat().st_size}" for name in names}


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("SFT_JOB_HOME", str(tmp_path / "home"))
    base = make(tmp_path / "base")
    fields = {"run": "/runs/a", "model": {"base": str(base)}, "data": {"train": ["/d.jsonl"]}, "lora": None}
    leader, node = RunDir(tmp_path / "leader").make(), RunDir(tmp_path / "node").make()
    leader.prepared.mkdir()
    asked: list[str] = []
    store = HookedStore(MemoryStore(), before=lambda operation, key: asked.append(f"{operation} {key}"))
    return Scene(RunConfig.from_dict(fields), store, leader, node, asked)


def test_all_that_the_ranks_need_is_there_and_the_rows_are_the_leaders(scene: Scene) -> None:
    brought = scene.brought()
    brought.early()
    brought.all_of(scene.told())
    assert (scene.node.base / "config.json").is_file() and (scene.node.tokenizer / "tokenizer.json").is_file()
    assert (scene.node.prepared / "train.arrow").read_bytes() == b"rows of f1"


def test_of_the_run_folder_a_node_reads_the_rows_and_nothing_else(scene: Scene) -> None:
    brought = scene.brought()
    brought.early()
    brought.all_of(scene.told())
    assert scene.asked == ["get prepared/f1.json", "download prepared/f1/0001/train.arrow"]


def test_what_is_there_is_not_brought_again_for_the_next_attempt_and_other_rows_take_its_place(scene: Scene) -> None:
    brought = scene.brought()
    brought.all_of(scene.told())
    scene.asked.clear()
    brought.all_of(scene.told(nonce="n2"))
    assert scene.asked == []
    brought.all_of(scene.told("f2"))
    assert (scene.node.prepared / "train.arrow").read_bytes() == b"rows of f2"


def test_rows_that_an_earlier_attempt_stored_are_not_stored_again(scene: Scene) -> None:
    scene.told()
    before = scene.store.inner.list("")
    scene.told()
    assert scene.store.inner.list("") == before


def test_a_node_with_another_base_says_which_file_differs(scene: Scene) -> None:
    told = scene.told()
    told = told.model_copy(update={"base": {**told.base, "config.json": "size:7"}})
    with pytest.raises(
        DataError, match=r"model.base: .*/config.json is not what node 0 has: size:\d+ here, size:7 there"
    ):
        scene.brought().all_of(told)


@pytest.mark.parametrize("digest", ["sha256:b", "etag:1"])
def test_a_file_that_is_missing_or_otherwise_is_refused(digest: str) -> None:
    here = Pulled(Path("/base"), "/base", {"a": "sha256:a"}, 1)
    same("model.base", here, {"a": "sha256:a"})
    with pytest.raises(DataError, match=f"/base/a is not what node 0 has: sha256:a here, {digest} there"):
        same("model.base", here, {"a": digest})
    with pytest.raises(DataError, match="/base/b is not what node 0 has: no such file here"):
        same("model.base", here, {"b": digest})


def test_a_leader_of_another_config_is_not_obeyed(scene: Scene) -> None:
    other = scene.config.replace({"train.learning_rate": 0.5}).to_dict()
    with pytest.raises(ConfigError, match=r"node 0 runs another config: train.learning_rate"):
        scene.brought().all_of(scene.told(config=other))


def test_what_the_leader_has_settled_is_no_other_config(scene: Scene) -> None:
    assert scene.config.model.precision == "auto"
    scene.brought().all_of(scene.told(config=scene.config.replace({"model.precision": "fp32"}).to_dict()))


def test_a_stop_interrupts_what_is_brought(scene: Scene) -> None:
    with pytest.raises(Stopped):
        scene.brought(stopped=True).all_of(scene.told())
