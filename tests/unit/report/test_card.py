from typing import Any

import pytest
from ruamel.yaml import YAML

from job.config import RunConfig
from job.report.card import model_card

RESULT = {
    "steps": 30,
    "rows": 930,
    "trained_tokens": 123456,
    "evaluations": [{"step": 20, "eval_loss": 1.1}, {"step": 30, "eval_loss": 1.25}],
    "best": {"step": 20, "eval_loss": 1.1},
    "versions": {"torch": "2.13.0", "peft": "0.21.2"},
}


def _front_matter(card: str) -> dict[str, Any]:
    _, head, _ = card.split("---\n", 2)
    loaded: dict[str, Any] = YAML(typ="safe").load(head)
    return loaded


def test_an_adapters_card_names_its_source_as_a_hub_does(config: RunConfig) -> None:
    assert _front_matter(model_card(config, RESULT)) == {
        "base_model": "org/base",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["sft", "sft-job", "lora"],
    }


def test_a_full_models_card_loads_without_peft(settings: dict[str, Any]) -> None:
    settings |= {"lora": None, "model": {"base": "s3://models/stories 33M"}}
    card = model_card(RunConfig.from_dict(settings), {})
    assert _front_matter(card)["library_name"] == "transformers"
    assert _front_matter(card)["base_model"] == "s3://models/stories 33M"
    assert "peft" not in card
    assert "| learning_rate | 2e-05 |" in card


def test_the_card_holds_data_hyperparameters_evaluations_and_versions(config: RunConfig) -> None:
    card = model_card(config, RESULT)
    for part in (
        "# first\n",
        "- `s3://data/chat-*.jsonl`",
        "20% held out for evaluation (seed 42)",
        "- 930 rows",
        "- 123,456 trained tokens",
        "| learning_rate | 0.0002 |",
        "| lora target_modules | q_proj, v_proj |",
        "| steps | 30 |",
        "- Last, step 30: eval_loss 1.250",
        "- Best by `eval_loss`, step 20: eval_loss 1.100",
        "torch 2.13.0, peft 0.21.2",
    ):
        assert part in card, part


@pytest.mark.parametrize("base", ["org/base", "s3://models/base"])
def test_the_cards_code_is_python_and_names_the_base(settings: dict[str, Any], base: str) -> None:
    settings["model"] = {"base": base if "://" in base else f"hf://{base}@main"}
    card = model_card(RunConfig.from_dict(settings), RESULT)
    code = card.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert f'AutoModelForCausalLM.from_pretrained("{base}")' in code
    assert ("to a local folder first" in card) == base.startswith("s3://")
