"""Plain transformers and peft load what is written; it answers, and stops by itself."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from job.tiny import make
from job.training.final import base_dtype, hub_name, write_final
from job.training.sample import encode

PROMPT, ANSWER = "微调测试", "我学会了"
TOKENIZER_FILES = {"chat_template.jinja", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose own generation config knows the end of the text only."""
    folder = tmp_path_factory.mktemp("cache") / "base"
    make(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> Any:
    return AutoTokenizer.from_pretrained(base)


@pytest.fixture(scope="module")
def ends(tokenizer: Any) -> list[int]:
    return [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")]


def load(base: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


def train(model: Any, tokenizer: Any, learning_rate: float) -> Any:
    """Until it knows the one answer for a while; nothing after the end of the turn is trained."""
    prompt = encode(tokenizer, PROMPT, chat=True)
    answer = tokenizer(ANSWER + "<end_of_turn>", add_special_tokens=False)["input_ids"]
    ids, labels = torch.tensor([prompt + answer]), torch.tensor([[-100] * len(prompt) + answer])
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate)
    known = 0
    while known < 20:  # a bound on the loss would not do: a frozen tied head of small weights keeps it high
        output = model(ids, labels=labels)
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        known = known + 1 if output.logits[0, len(prompt) - 1 : -1].argmax(-1).tolist() == answer else 0
    return model


@pytest.fixture(scope="module")
def adapted(base: Path, tokenizer: Any) -> Any:
    torch.manual_seed(0)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    return train(get_peft_model(load(base), config), tokenizer, 1e-2)


def answer_of(model: Any, folder: Path, config: GenerationConfig | None = None) -> str:
    """As a reader of the result would ask it, special tokens shown."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": PROMPT}]
    batch = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.eval().generate(**batch, generation_config=config, max_new_tokens=40)
    return str(tokenizer.decode(output[0, batch["input_ids"].shape[1] :]))


def test_an_adapter_loaded_by_plain_peft_answers_and_stops_by_itself(
    adapted: Any, tokenizer: Any, base: Path, ends: list[int], tmp_path: Path
) -> None:
    folder = tmp_path / "final"
    write_final(folder, adapted, tokenizer, base_source=str(base), eos_ids=ends)
    loaded = PeftModel.from_pretrained(load(base), folder)
    assert answer_of(loaded, folder, GenerationConfig.from_pretrained(folder)) == ANSWER + "<end_of_turn>"
    assert answer_of(loaded, folder) != ANSWER + "<end_of_turn>"  # the base's own config does not know that end


def test_a_full_model_loaded_by_plain_transformers_answers_and_stops_by_itself(
    base: Path, tokenizer: Any, ends: list[int], tmp_path: Path
) -> None:
    folder, model = tmp_path / "final", train(load(base), tokenizer, 1e-3)
    write_final(folder, model, tokenizer, base_source=str(base), eos_ids=ends, dtype=torch.bfloat16)
    assert answer_of(AutoModelForCausalLM.from_pretrained(folder), folder) == ANSWER + "<end_of_turn>"


def test_a_loaded_adapter_computes_exactly_what_the_trained_one_did(
    adapted: Any, tokenizer: Any, base: Path, ends: list[int], tmp_path: Path
) -> None:
    write_final(tmp_path / "final", adapted, tokenizer, base_source=str(base), eos_ids=ends)
    ids = torch.tensor([encode(tokenizer, PROMPT, chat=True)])
    with torch.no_grad():
        expected = adapted.eval()(ids).logits
        assert torch.equal(PeftModel.from_pretrained(load(base), tmp_path / "final").eval()(ids).logits, expected)


def test_an_adapter_folder_holds_these_files_and_names_the_source_never_a_cache_path(
    adapted: Any, tokenizer: Any, base: Path, ends: list[int], tmp_path: Path
) -> None:
    folder = tmp_path / "final"
    write_final(folder, adapted, tokenizer, base_source="s3://models/gemma", eos_ids=ends)
    names = {path.name for path in folder.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "generation_config.json", *TOKENIZER_FILES}
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "s3://models/gemma"
    assert not [path.name for path in folder.iterdir() if str(base.parent).encode() in path.read_bytes()]
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1  # whoever may read one may read all


def test_a_base_on_the_hub_is_named_as_peft_expects_it(
    adapted: Any, tokenizer: Any, ends: list[int], tmp_path: Path
) -> None:
    write_final(tmp_path / "final", adapted, tokenizer, base_source="hf://org/name@1a2b3c", eos_ids=ends)
    config = json.loads((tmp_path / "final" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/name", "1a2b3c")
    assert hub_name("hf://org/name") == ("org/name", None)
    assert hub_name("/models/with@sign") == ("/models/with@sign", None)


def test_the_trained_ends_are_listed_beside_the_bases_own(
    adapted: Any, tokenizer: Any, ends: list[int], tmp_path: Path
) -> None:
    write_final(tmp_path / "final", adapted, tokenizer, base_source="s3://b/m", eos_ids=[ends[1]])
    assert GenerationConfig.from_pretrained(tmp_path / "final").eos_token_id == ends


def test_the_same_tensors_give_the_same_bytes(
    adapted: Any, tokenizer: Any, base: Path, ends: list[int], tmp_path: Path
) -> None:
    write_final(tmp_path / "one", adapted, tokenizer, base_source="s3://b/m", eos_ids=ends)
    again = PeftModel.from_pretrained(load(base), tmp_path / "one")
    tokenizer_again = AutoTokenizer.from_pretrained(base, local_files_only=True)
    tokenizer_again("cut", truncation=True, max_length=2)  # leaves its mark on the tokenizer
    write_final(tmp_path / "two", again, tokenizer_again, base_source="s3://b/m", eos_ids=ends)
    for path in sorted((tmp_path / "one").iterdir()):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
    listed = json.loads((tmp_path / "one" / "adapter_config.json").read_text())["target_modules"]
    assert listed == sorted(listed)


def test_a_full_model_is_stored_in_the_bases_dtype_with_tied_weights_once(
    base: Path, tokenizer: Any, ends: list[int], tmp_path: Path
) -> None:
    model, folder = load(base), tmp_path / "final"
    model.config.use_cache = False  # as training leaves it
    write_final(folder, model, tokenizer, base_source="s3://b/m", eos_ids=ends, dtype=torch.bfloat16)
    stored = load_file(folder / "model.safetensors")
    trained = dict(model.named_parameters())
    assert set(stored) == set(trained)  # named_parameters() names a tied tensor once
    for name, tensor in stored.items():
        assert tensor.dtype == torch.bfloat16 and torch.equal(tensor, trained[name].bfloat16()), name
    config = json.loads((folder / "config.json").read_text())
    assert config["dtype"] == "bfloat16" and config["use_cache"] is True and "_name_or_path" not in config
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert loaded.dtype == torch.bfloat16
    assert loaded.lm_head.weight.data_ptr() == loaded.model.embed_tokens.weight.data_ptr()
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", "model.safetensors", "generation_config.json", *TOKENIZER_FILES}


def test_writing_a_full_model_leaves_the_one_in_memory_as_it_was(
    base: Path, tokenizer: Any, ends: list[int], tmp_path: Path
) -> None:
    model = load(base)
    model.config.use_cache = False
    before = model.config.to_dict(), model.generation_config.to_dict()
    write_final(tmp_path / "final", model, tokenizer, base_source="s3://b/m", eos_ids=ends, dtype=torch.bfloat16)
    assert (model.config.to_dict(), model.generation_config.to_dict()) == before
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_whole_tensors_given_from_outside_are_the_ones_written(
    base: Path, tokenizer: Any, ends: list[int], tmp_path: Path
) -> None:
    model = load(base)
    whole = {name: torch.full_like(tensor, 0.5) for name, tensor in model.state_dict().items()}
    whole["lm_head.weight"] = whole["model.embed_tokens.weight"]
    write_final(tmp_path / "full", model, tokenizer, base_source="s3://b/m", eos_ids=ends, state_dict=whole)
    assert {float(t.min()) for t in load_file(tmp_path / "full" / "model.safetensors").values()} == {0.5}

    adapter = get_peft_model(load(base), LoraConfig(r=2, task_type="CAUSAL_LM"))
    whole = {name: torch.full_like(tensor, 0.5) for name, tensor in adapter.state_dict().items()}
    write_final(tmp_path / "lora", adapter, tokenizer, base_source="s3://b/m", eos_ids=ends, state_dict=whole)
    assert {float(t.max()) for t in load_file(tmp_path / "lora" / "adapter_model.safetensors").values()} == {0.5}


def test_an_adapter_keeps_the_precision_it_was_trained_in(
    adapted: Any, tokenizer: Any, ends: list[int], tmp_path: Path
) -> None:
    write_final(tmp_path / "f", adapted, tokenizer, base_source="s3://b/m", eos_ids=ends, dtype=torch.bfloat16)
    with safe_open(tmp_path / "f" / "adapter_model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float32}  # noqa: SIM118


def test_older_generation_configs_that_name_sampling_without_sampling_are_written(
    base: Path, tokenizer: Any, ends: list[int], tmp_path: Path
) -> None:
    model = load(base)
    model.generation_config.temperature, model.generation_config.top_p = 0.6, 0.9
    write_final(tmp_path / "final", model, tokenizer, base_source="s3://b/m", eos_ids=ends)
    written = GenerationConfig.from_pretrained(tmp_path / "final")
    assert written.eos_token_id == ends and written.temperature is None


def test_a_write_cut_short_leaves_no_result_and_the_next_one_succeeds(
    adapted: Any, tokenizer: Any, ends: list[int], tmp_path: Path
) -> None:
    class Broken:
        is_fast, pad_token_id = False, 0

        def save_pretrained(self, folder: Path) -> None:
            raise OSError("no space left")

    folder = tmp_path / "final"
    with pytest.raises(OSError, match="no space"):
        write_final(folder, adapted, Broken(), base_source="s3://b/m", eos_ids=ends)
    assert not folder.exists()
    for _ in range(2):  # onto nothing, then onto the result of an earlier call
        write_final(folder, adapted, tokenizer, base_source="s3://b/m", eos_ids=ends)
        assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_the_bases_dtype_is_read_from_its_weights_before_its_config(base: Path, tmp_path: Path) -> None:
    load(base).to(torch.bfloat16).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "dtype": "float16"}))
    assert base_dtype(tmp_path) == torch.bfloat16
    (tmp_path / "model.safetensors").unlink()
    assert base_dtype(tmp_path) == torch.float16
    (tmp_path / "config.json").write_text("{}")
    assert base_dtype(tmp_path) is None
