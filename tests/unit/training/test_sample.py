"""Only the new text comes out, and training cannot tell that anything was generated."""

import copy
import random
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer

from job.errors import DataError
from job.tiny import make
from job.training.chat import Marked
from job.training.encode import Encoded, Encoder
from job.training.sample import POLL_EVERY_TOKENS, Sample, encode, generate


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    make(folder)
    return folder


@pytest.fixture
def tokenizer(base: Path) -> Any:
    return AutoTokenizer.from_pretrained(base)


def greedy_ids(model: Any, ids: list[int], tokens: int) -> list[int]:
    """The plainest loop there is: the whole text again for each token."""
    new: list[int] = []
    with torch.no_grad():
        for _ in range(tokens):
            new.append(int(model(torch.tensor([ids + new]), use_cache=False).logits[0, -1].argmax()))
            if new[-1] == model.generation_config.eos_token_id:
                break
    return new


@pytest.fixture
def model(base: Path, tokenizer: Any) -> Any:
    """Random weights with something to say: many are silent, or repeat one token."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    for seed in range(1000):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.model.layers.parameters():
                parameter.normal_(std=0.3, generator=generator)
        said = greedy_ids(model, encode(tokenizer, "微调", chat=True), 12)
        if len(set(said)) >= 8 and not set(said) & set(tokenizer.all_special_ids):
            return model
    raise AssertionError("no seed gives a model with something to say")


def samples(model: Any, tokenizer: Any, *prompts: str, **changed: Any) -> list[Sample]:
    settings = {
        "chat": True,
        "max_new_tokens": 12,
        "temperature": 0.0,
        "top_p": 1.0,
        "seed": 7,
        "eos_ids": [],
        "stopped": lambda: False,
    }
    return list(generate(model, tokenizer, prompts, **{**settings, **changed}))


def test_greedy_text_is_what_a_plain_argmax_loop_gives(model: Any, tokenizer: Any) -> None:
    new = greedy_ids(model, encode(tokenizer, "微调", chat=True), 12)
    assert samples(model, tokenizer, "微调") == [Sample("微调", tokenizer.decode(new, skip_special_tokens=True))]


def test_a_chat_prompt_is_one_user_turn_with_special_tokens_once(tokenizer: Any) -> None:
    ids = encode(tokenizer, "微调测试", chat=True)
    assert tokenizer.decode(ids) == "<bos><start_of_turn>user\n微调测试<end_of_turn>\n<start_of_turn>model\n"
    assert ids.count(tokenizer.bos_token_id) == 1


def test_a_text_prompt_begins_as_a_prepared_row_of_text_does(tokenizer: Any) -> None:
    """Marked as prompt and completion, the row begins with the prompt's own ids: BOS once, no turns."""
    row = Encoder(tokenizer).encode([Marked("微调测试", ((2, 4),), chat=False, eos=True)])[0]
    assert isinstance(row, Encoded) and row.input_ids[-1] == tokenizer.eos_token_id
    assert encode(tokenizer, "微调测试", chat=False) == row.input_ids[:-1]


def test_what_a_tokenizer_puts_around_a_text_is_put_before_it_once_and_never_behind(tokenizer: Any) -> None:
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    plain = tokenizer("微调", add_special_tokens=False)["input_ids"]
    both = [("<bos>", bos), ("<eos>", eos)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A <eos>", special_tokens=both)
    assert tokenizer("微调")["input_ids"] == [bos, *plain, eos]
    assert encode(tokenizer, "微调", chat=False) == encode(tokenizer, "<bos>微调", chat=False) == [bos, *plain]


def test_text_continues_a_text_prompt_without_repeating_it(model: Any, tokenizer: Any) -> None:
    new = greedy_ids(model, encode(tokenizer, "微调", chat=False), 12)
    whole = tokenizer.decode(encode(tokenizer, "微调", chat=False) + new, skip_special_tokens=True)
    assert ["微调" + sample.generation for sample in samples(model, tokenizer, "微调", chat=False)] == [whole]


def test_an_empty_text_prompt_begins_a_text(model: Any, tokenizer: Any) -> None:
    assert [sample.prompt for sample in samples(model, tokenizer, "", chat=False)] == [""]


def test_generation_ends_at_each_end_and_does_not_show_it(model: Any, tokenizer: Any) -> None:
    new = greedy_ids(model, encode(tokenizer, "微调", chat=True), 12)
    end = new[5]
    shown = tokenizer.decode(new[: new.index(end)], skip_special_tokens=True)
    assert [sample.generation for sample in samples(model, tokenizer, "微调", eos_ids=[end])] == [shown]


def test_the_models_own_end_stops_it_where_none_was_trained(model: Any, tokenizer: Any) -> None:
    new = greedy_ids(model, encode(tokenizer, "微调", chat=True), 12)
    model.generation_config.eos_token_id = new[4]
    first = tokenizer.decode(new[: new.index(new[4])], skip_special_tokens=True)
    assert [sample.generation for sample in samples(model, tokenizer, "微调")] == [first]


def test_training_randomness_and_the_model_are_left_as_they_were(model: Any, tokenizer: Any) -> None:
    model = get_peft_model(model, LoraConfig(r=2, lora_dropout=0.5, target_modules="all-linear", task_type="CAUSAL_LM"))
    model.gradient_checkpointing_enable()
    model.config.use_cache = False
    model.train()
    inner = model.get_base_model()
    inner.lm_head.eval()  # a module may have a mode of its own
    modes = [module.training for module in model.modules()]
    flags = [getattr(module, "gradient_checkpointing", None) for module in model.modules()]
    config, states = copy.deepcopy(inner.generation_config.to_dict()), _random_states()

    iterator = generate(
        model,
        tokenizer,
        ["微调", "测试"],
        chat=True,
        max_new_tokens=4,
        temperature=1.0,
        top_p=0.9,
        seed=7,
        eos_ids=[],
        stopped=lambda: False,
    )
    for _ in iterator:  # between two samples, too
        assert [module.training for module in model.modules()] == modes
        assert [getattr(module, "gradient_checkpointing", None) for module in model.modules()] == flags
        assert _random_states() == states
        assert inner.generation_config.to_dict() == config
    assert True in flags and torch.is_grad_enabled()


def _random_states() -> tuple[Any, ...]:
    name, keys, *rest = numpy.random.get_state()
    return random.getstate(), name, keys.tolist(), rest, torch.get_rng_state().tolist()


def test_an_adapter_answers_as_its_merged_model(model: Any, tokenizer: Any) -> None:
    adapted = get_peft_model(model, LoraConfig(r=2, init_lora_weights=False, target_modules="all-linear"))
    found = samples(adapted, tokenizer, "微调")
    assert found == samples(adapted.merge_and_unload(), tokenizer, "微调")


def test_each_token_is_computed_once_though_training_has_switched_the_cache_off(model: Any, tokenizer: Any) -> None:
    model.config.use_cache = False
    lengths: list[int] = []
    model.model.layers[0].register_forward_pre_hook(lambda module, inputs: lengths.append(inputs[0].shape[1]))
    samples(model, tokenizer, "微调")
    assert lengths[0] == len(encode(tokenizer, "微调", chat=True)) and set(lengths[1:]) == {1} and len(lengths) == 12


def test_sampling_defaults_of_the_base_do_not_leak_in(model: Any, tokenizer: Any) -> None:
    expected = samples(model, tokenizer, "微调")
    model.generation_config.repetition_penalty = 50.0
    model.generation_config.do_sample = True
    model.generation_config.temperature = 5.0
    assert samples(model, tokenizer, "微调") == expected


def test_sampling_repeats_by_seed_and_place_whatever_was_sampled_before(model: Any, tokenizer: Any) -> None:
    hot = {"temperature": 3.0}
    first = samples(model, tokenizer, "微调", "测试", **hot)
    random.random(), torch.rand(5)
    assert samples(model, tokenizer, "另外", "测试", **hot)[1] == first[1]
    assert samples(model, tokenizer, "微调", "测试", seed=8, **hot) != first


def test_a_tiny_top_p_is_greedy_at_any_temperature(model: Any, tokenizer: Any) -> None:
    assert samples(model, tokenizer, "微调", temperature=3.0, top_p=1e-6) == samples(model, tokenizer, "微调")


def test_a_stop_request_before_the_first_prompt_gives_nothing(model: Any, tokenizer: Any) -> None:
    assert samples(model, tokenizer, "微调", stopped=lambda: True) == []


def test_a_stop_request_ends_a_long_answer_within_a_few_tokens_and_drops_it(model: Any, tokenizer: Any) -> None:
    steps: list[int] = []
    model.model.layers[0].register_forward_pre_hook(lambda module, inputs: steps.append(1))
    found = samples(model, tokenizer, "微调", "测试", max_new_tokens=60, stopped=lambda: len(steps) >= 3)
    assert found == [] and len(steps) <= 3 + POLL_EVERY_TOKENS


def test_autocast_computes_in_the_dtype_it_is_given(model: Any, tokenizer: Any) -> None:
    seen: set[torch.dtype] = set()
    model.model.layers[0].mlp.down_proj.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    samples(model, tokenizer, "微调", autocast=torch.bfloat16)
    assert seen == {torch.bfloat16}
    assert next(model.parameters()).dtype == torch.float32


def test_an_answer_ends_where_the_model_has_no_more_positions(model: Any, tokenizer: Any) -> None:
    model.config.max_position_embeddings = len(encode(tokenizer, "微调", chat=True)) + 2
    steps: list[int] = []
    model.model.layers[0].register_forward_pre_hook(lambda module, inputs: steps.append(1))
    samples(model, tokenizer, "微调")
    assert len(steps) == 2


def test_a_prompt_longer_than_the_model_is_refused(model: Any, tokenizer: Any) -> None:
    model.config.max_position_embeddings = 5
    with pytest.raises(DataError, match="leaves no room"):
        samples(model, tokenizer, "微调测试微调测试")


def test_a_turn_without_a_chat_template_is_refused(model: Any, tokenizer: Any) -> None:
    tokenizer.chat_template = None
    with pytest.raises(DataError, match="no chat template"):
        samples(model, tokenizer, "微调")


def test_what_the_template_refuses_is_said_in_its_words(tokenizer: Any) -> None:
    with pytest.raises(DataError, match=r"refuses the prompt: .*[Ss]ystem"):
        encode(tokenizer, "微调", chat=True, system="你好")
