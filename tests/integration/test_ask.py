"""A finished run is asked: its answer on stdout and nothing else, nothing left behind, however it ends."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from job.answer import answer
from job.config import RunConfig
from job.errors import ConfigError, DataError, ExitCode
from job.storage.records import FileRecord, Result, RunRecord
from job.tiny import ANSWER, QUESTION, make
from job.training.final import write_final
from job.training.sample import encode, generate
from tests.conftest import Bucket

ASK = """
import sys
from job.answer import answer
from job.errors import JobError
try:
    code = answer(sys.argv[1], sys.argv[2], device="cpu")
except JobError as error:
    print(error, file=sys.stderr)
    code = error.exit_code
assert "torch" not in sys.modules
sys.exit(code)
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with base/, adapter/ and full/: a tiny base that has learned one sentence, in both shapes."""
    root = tmp_path_factory.mktemp("tuned")
    base = make(root / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    prompt = encode(tokenizer, QUESTION, chat=True)
    target = tokenizer(ANSWER + "<end_of_turn>", add_special_tokens=False)["input_ids"]
    ids, labels = torch.tensor([prompt + target]), torch.tensor([[-100] * len(prompt) + target])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    known = 0
    while known < 20:
        output = model(ids, labels=labels)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        known = known + 1 if output.logits[0, len(prompt) - 1 : -1].argmax(-1).tolist() == target else 0
    ends = [tokenizer.convert_tokens_to_ids("<end_of_turn>")]
    write_final(root / "adapter", model, tokenizer, base_source=str(base), eos_ids=ends)
    write_final(root / "full", model.merge_and_unload(), tokenizer, base_source=str(base), eos_ids=ends)
    return root


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    monkeypatch.setenv("SFT_JOB_HOME", str(home))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return home


def finished_run(run: Path, uri: str, tuned: Path, kind: str, base: str) -> Path:
    """The run folder of a finished run, written to the folder `run`, which `uri` will name."""
    folder = run / "final" / "0001"
    shutil.copytree(tuned / kind, folder)
    files = [
        FileRecord(name=path.name, size=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.iterdir())
    ]
    config = RunConfig.from_dict(
        {"run": uri, "model": {"base": base}, "data": {"train": ["/data/chat.jsonl"]}, "lora": {"r": 8}}
    )
    about = {"digest": "d", "prepared": "p", "base": {}, "base_source": base, "tokenizer_source": base}
    about |= {"version": "0", "trajectory": {}}
    (run / "run.json").write_bytes(RunRecord(config=config.to_dict(), **about).dump())
    made = {
        "step": 1,
        "steps": 1,
        "best": None,
        "attempt": 1,
        "commit": None,
        "evaluations": [],
        "base": base,
        "created": "",
        "versions": {},
    }
    result = Result(folder="final/0001", files=files, kind=kind, chat=True, **made)
    (run / "final" / "result.json").write_bytes(result.dump())
    return run


@pytest.fixture
def run(tuned: Path, tmp_path: Path) -> Path:
    return finished_run(tmp_path / "run", str(tmp_path / "run"), tuned, "adapter", str(tuned / "base"))


def ask(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ASK, *arguments], capture_output=True, encoding="utf-8", timeout=120, **options
    )


def test_stdout_gets_the_answer_and_nothing_else_and_nothing_is_left(run: Path, home: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    asked = ask(str(run), QUESTION)
    assert (asked.stdout, asked.returncode) == (f"{ANSWER}\n", 0), asked.stderr
    assert list(home.glob("ask-*")) == []
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_full_model_is_asked_by_its_config_file_under_any_locale(tuned: Path, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    finished_run(folder, str(folder), tuned, "full", "s3://nowhere/base")  # which a full result does not need
    config = tmp_path / "RUN.yaml"
    config.write_text(f"run: {folder}\nmodel: {{base: s3://nowhere/base}}\ndata: {{train: [d.jsonl]}}\nlora: null\n")
    asked = ask(str(config), QUESTION, env={**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"})
    assert (asked.stdout, asked.returncode) == (f"{ANSWER}\n", 0), asked.stderr


def test_a_run_on_s3_whose_base_lies_there_too(tuned: Path, home: Path, tmp_path: Path, s3: Bucket) -> None:
    run = finished_run(tmp_path / "run", f"{s3.uri}/runs/one", tuned, "adapter", f"{s3.uri}/models/tiny")
    for folder, prefix in ((run, "runs/one"), (tuned / "base", "models/tiny")):
        for path in (path for path in folder.rglob("*") if path.is_file()):
            s3.client().upload_file(str(path), s3.name, f"{prefix}/{path.relative_to(folder)}")
    shutil.rmtree(run)
    asked = ask(f"{s3.uri}/runs/one/", QUESTION)
    assert (asked.stdout, asked.returncode) == (f"{ANSWER}\n", 0), asked.stderr


def test_a_run_without_a_result_says_so(run: Path, home: Path) -> None:
    (run / "final" / "result.json").unlink()
    with pytest.raises(DataError, match="has no result yet; run it to the end first"):
        answer(str(run), QUESTION)


def test_a_file_that_is_no_config_is_no_run(run: Path, home: Path) -> None:
    with pytest.raises(ConfigError, match=r"neither a RUN\.yaml nor a run folder"):
        answer(str(run / "run.json"), QUESTION)


def test_a_flipped_bit_in_the_result_is_found_before_it_is_asked(run: Path, home: Path) -> None:
    path = run / "final" / "0001" / "adapter_model.safetensors"
    *whole, last = path.read_bytes()
    path.write_bytes(bytes([*whole, last ^ 1]))
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(DataError, match=r"adapter_model\.safetensors is damaged"):
        answer(str(run), QUESTION)
    assert list(home.glob("ask-*")) == []
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers


def test_a_result_that_names_files_outside_its_folder_is_refused(run: Path, home: Path) -> None:
    path = run / "final" / "result.json"
    result = json.loads(path.read_text())
    result["files"][0]["name"] = "../../run.json"
    path.write_text(json.dumps(result))
    with pytest.raises(DataError, match="stays below its folder"):
        answer(str(run), QUESTION)


@pytest.fixture
def asking(run: Path, home: Path) -> Iterator[tuple[subprocess.Popen[bytes], psutil.Process]]:
    """An ask under way, leader of its process group, and the program it has started."""
    command = [sys.executable, "-c", ASK, str(run), QUESTION]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    children: list[psutil.Process] = []
    while not children and process.poll() is None:
        time.sleep(0.02)
        children = [child for child in psutil.Process(process.pid).children() if "job.ask" in child.cmdline()]
    yield process, children[0]
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_ends_both_processes_and_leaves_nothing(
    asking: tuple[subprocess.Popen[bytes], psutil.Process], home: Path, number: signal.Signals
) -> None:
    process, program = asking
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (ExitCode.STOPPED, b"")
    assert err.decode().splitlines()[-1] == f"stopped by {number.name} before the answer was there"
    assert not program.is_running() and list(home.glob("ask-*")) == []


def test_the_program_dies_with_the_process_that_started_it(
    asking: tuple[subprocess.Popen[bytes], psutil.Process],
) -> None:
    process, program = asking
    while program.is_running() and program.num_threads() == 1:  # until it has come as far as loading torch
        time.sleep(0.02)
    process.kill()
    for _ in range(600):  # the kernel's KILL arrives by itself; a container without an init keeps the zombie
        if not program.is_running() or program.status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    raise AssertionError("the program outlived the process that started it")


def program(tmp_path: Path, **changed: Any) -> subprocess.CompletedProcess[str]:
    request = {"adapter": None, "prompts": ["x"], "chat": True, "device": "cpu", **changed}
    (tmp_path / "request.json").write_text(json.dumps(request))
    command = [sys.executable, "-m", "job.ask", str(tmp_path / "request.json")]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120)


def test_files_that_are_no_model_are_one_line_and_65(home: Path, tmp_path: Path, tuned: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tuned / "full", base)
    (base / "model.safetensors").write_bytes(b"no tensors")
    ended = program(tmp_path, base=str(base), tokenizer=str(base))
    assert (ended.returncode, ended.stdout) == (ExitCode.DATA, "")
    assert ended.stderr.splitlines()[-1].startswith("DataError: the tuned model cannot be loaded: ")
    assert "Traceback" not in ended.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_there_is_one_line_and_69(home: Path, tmp_path: Path, tuned: Path) -> None:
    ended = program(tmp_path, base=str(tuned / "full"), tokenizer=str(tuned / "full"), device="cuda")
    assert (ended.returncode, ended.stdout) == (ExitCode.HARDWARE, "")
    assert "no CUDA device" in ended.stderr.splitlines()[-1] and "Traceback" not in ended.stderr


def test_several_text_prompts_are_continued_in_order(home: Path, tmp_path: Path, tuned: Path) -> None:
    base, prompts = str(tuned / "full"), ["微调", "你好"]
    ended = program(tmp_path, base=base, tokenizer=base, chat=False, prompts=prompts, max_new_tokens=3)
    settings = {"max_new_tokens": 3, "temperature": 0.0, "top_p": 1.0, "seed": 0, "eos_ids": []}
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    expected = list(generate(model, tokenizer, prompts, chat=False, stopped=lambda: False, **settings))
    assert ended.stdout == "".join(f"{sample.generation}\n" for sample in expected), ended.stderr
    assert len(expected) == 2 and expected[0].generation != expected[1].generation


def test_weights_that_lack_a_tensor_are_refused_not_made_up(home: Path, tmp_path: Path, tuned: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tuned / "full", base)
    tensors = load_file(tuned / "full" / "model.safetensors")
    tensors.pop("model.norm.weight")
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    ended = program(tmp_path, base=str(base), tokenizer=str(base))
    assert ended.returncode == ExitCode.DATA and "lack model.norm.weight" in ended.stderr.splitlines()[-1]
