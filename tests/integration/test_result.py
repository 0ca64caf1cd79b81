"""The result of a run is for others: plain transformers and peft load it in a process that knows nothing of us."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from job.storage.attempts import PROBE
from job.storage.checkpoints import PROBE as COMMITS_PROBE
from job.storage.store import open_store
from tests import standins
from tests.harness import finish, sets
from tests.servers import KEYS, Bucket

pytestmark = pytest.mark.slow

CONFIG = """
model: {base: BASE}
data: {train: [CONVERSATION], max_length: 64}
train: {max_steps: 60, global_batch_size: 1, lr_scheduler_type: constant, eval_steps: 60}
checkpoint: {every: 25 steps, keep: 2}
samples: {prompts: [微调测试]}
parallel: {device: cpu}
track: [tensorboard, wandb]
"""
ADAPTER = {"lora": {"r": 8, "alpha": 16, "dropout": 0.0}, "train.learning_rate": 1e-2}
FULL = {"lora": None, "train.learning_rate": 1e-3}


class Made:
    """An adapter and a full model, tuned from a base in object storage into folders of this machine."""

    def __init__(self, root: Path, bucket: Bucket) -> None:
        self.root, self.base, self.source = root, standins.gemma(root / "base"), f"{bucket.uri}/models/tiny-gemma"
        store = open_store(bucket.uri)
        for file in sorted(self.base.iterdir()):
            store.upload(file, f"models/tiny-gemma/{file.name}")
        chat = standins.write_conversation(root / "conversation.jsonl")
        (root / "run.yaml").write_text(CONFIG, encoding="utf-8")
        for name, fields in (("adapter", ADAPTER), ("full", FULL)):
            paths = {"run": str(root / name), "model.base": self.source, "data.train": [str(chat)]}
            arguments = ["run", str(root / "run.yaml"), *sets({**paths, **fields, "data.eval": str(chat)})]
            finish(arguments, root / "home", {**bucket.env, "WANDB_MODE": "offline"})

    def result(self, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / kind / "final" / "result.json").read_text(encoding="utf-8"))
        return found

    def folder(self, kind: str) -> Path:
        return self.root / kind / str(self.result(kind)["folder"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, s3_endpoint: str) -> Iterator[Made]:
    root = tmp_path_factory.mktemp("result")
    env = {
        **KEYS,
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(root / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(root / "none"),
    }
    bucket = Bucket(s3_endpoint, f"result-{uuid.uuid4().hex[:12]}", env)
    bucket.client().create_bucket(Bucket=bucket.name)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        made = Made(root, bucket)
    shutil.rmtree(root / "home")  # whatever was cached there: nothing of the result may need it
    yield made


def fresh_process(code: str, folder: Path, *arguments: str) -> str:
    """What `code` prints, run in `folder` by an interpreter that has not this repository on its path."""
    guard = "\nimport sys; assert not [name for name in sys.modules if name.partition('.')[0] == 'job']\n"
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SFT_JOB_HOME")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code + guard, *arguments],
        cwd=folder,
        env={**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LOAD = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

base, question = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(".")
if base:
    from peft import PeftModel
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), ".")
else:
    model = AutoModelForCausalLM.from_pretrained(".")
chat = [{"role": "user", "content": question}]
inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True, return_tensors="pt")
config = GenerationConfig.from_pretrained(".")
answer = model.generate(**inputs, generation_config=config, max_new_tokens=100, do_sample=False)[0].tolist()
print(json.dumps(tokenizer.convert_ids_to_tokens(answer[inputs["input_ids"].shape[1]:])))
print(tokenizer.decode(answer))
"""


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_plain_transformers_and_peft_load_it_and_it_stops_by_itself(made: Made, kind: str) -> None:
    base = str(made.base) if kind == "adapter" else ""
    tokens, text = fresh_process(LOAD, made.folder(kind), base, standins.QUESTION).splitlines()[0::4]
    generated = json.loads(tokens)
    assert generated[-1] == "<end_of_turn>" and generated.count("<end_of_turn>") == 1 and len(generated) < 20
    assert text == f"{standins.ANSWER}<end_of_turn>"


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_the_cards_own_code_answers_and_stops(made: Made, kind: str) -> None:
    card = (made.folder(kind) / "README.md").read_text(encoding="utf-8")
    code = card.split("```python\n")[1].split("```")[0]
    assert (made.source in code) == (kind == "adapter")
    assert fresh_process(code.replace(made.source, str(made.base)), made.folder(kind)) == f"{standins.ANSWER}\n"


def test_the_adapter_names_its_source_and_no_path_of_this_machine(made: Made) -> None:
    folder = made.folder("adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == made.source
    home = str(made.root / "home").encode()
    for kind in ("adapter", "full"):
        assert [file.name for file in made.folder(kind).iterdir() if home in file.read_bytes()] == []


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_the_trained_end_of_turn_is_among_the_ends_that_are_listed(made: Made, kind: str) -> None:
    ends = json.loads((made.folder(kind) / "generation_config.json").read_text())["eos_token_id"]
    tokens = json.loads((made.folder(kind) / "tokenizer.json").read_text())["added_tokens"]
    ids = {token["content"]: token["id"] for token in tokens}
    assert set(ends) == {ids["<end_of_turn>"], ids["<eos>"]}
    assert json.loads((made.base / "generation_config.json").read_text())["eos_token_id"] == ids["<eos>"]


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_the_result_names_every_file_with_its_sha256(made: Made, kind: str) -> None:
    result, folder = made.result(kind), made.folder(kind)
    named = {file["name"]: (file["size"], file["sha256"]) for file in result["files"]}
    found = {
        file.relative_to(folder).as_posix(): (file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest())
        for file in folder.rglob("*")
        if file.is_file()
    }
    assert named == found
    weights = "adapter_model.safetensors" if kind == "adapter" else "model.safetensors"
    assert {weights, "README.md", "provenance.json", "tokenizer.json", "chat_template.jinja"} <= named.keys()


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_card_and_provenance_say_where_it_comes_from(made: Made, kind: str) -> None:
    result, folder = made.result(kind), made.folder(kind)
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["commit"] == result["commit"] and (made.root / kind / provenance["commit"]).exists()
    assert provenance["base"] == made.source and provenance["step"] == 60
    assert {"torch", "transformers", "trl", "peft"} <= provenance["versions"].keys()
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert made.source in card and "conversation.jsonl" in card and "eval_loss" in card


PLAIN = (".json", ".jsonl", ".safetensors", ".arrow", ".md", ".jinja")
OF_WANDB = (".wandb", ".json", ".yaml", ".txt", ".log")


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_no_file_of_the_run_folder_is_a_pickle(made: Made, kind: str) -> None:
    run = made.root / kind
    files = [file for file in run.rglob("*") if file.is_file()]
    assert {file.relative_to(run).parts[0] for file in files} >= {"checkpoints", "prepared", "wandb", "tensorboard"}
    for file in files:
        allowed = OF_WANDB if file.relative_to(run).parts[0] == "wandb" else PLAIN
        if file in (run / PROBE, run / COMMITS_PROBE):
            assert file.stat().st_size <= 16  # a few random bytes
            continue
        assert file.suffix in allowed or file.name.startswith("events.out.tfevents."), file
        start = file.read_bytes()[:2]
        assert not start.startswith(b"\x80") or file.suffix == ".safetensors", f"{file} begins like a pickle"
        assert start != b"PK", f"{file} begins like a zip archive, torch's shape of a pickle"
