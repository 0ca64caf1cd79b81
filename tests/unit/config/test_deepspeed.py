"""The DeepSpeed configs of our strategies, whole: `python -m tests.unit.config.test_deepspeed` rewrites the file."""

import json
from pathlib import Path
from typing import Any

import pytest

from job.config import RunConfig
from job.config.deepspeed import deepspeed_config

GOLDEN = Path(__file__).parents[2] / "golden" / "deepspeed-2x8.json"


def config(**parallel: Any) -> RunConfig:
    tree = {"run": "s3://runs/a", "model": {"base": "s3://models/a"}, "data": {"train": ["s3://data/a"]}, "lora": None}
    return RunConfig.from_dict({**tree, "parallel": parallel})


def all_stages() -> dict[str, Any]:
    """It says nothing of the number of ranks: DeepSpeed counts them itself."""
    ways = [("zero1", "none"), ("zero2", "optimizer"), ("zero3", "none"), ("zero3", "all")]
    return {
        f"{strategy}, offload {offload}": deepspeed_config(config(strategy=strategy, offload=offload), "bf16")
        for strategy, offload in ways
    }


def test_the_config_is_the_one_that_was_looked_at() -> None:
    assert all_stages() == json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("computing", ["bf16", "fp32"])
def test_gradients_are_summed_in_fp32_and_the_optimizer_is_torchs(computing: str) -> None:
    made = deepspeed_config(config(strategy="zero2"), computing)
    assert made["bf16"] == {"enabled": computing == "bf16"}
    assert made["data_types"] == {"grad_accum_dtype": "fp32"}
    assert "optimizer" not in made and made["zero_force_ds_cpu_optimizer"] is False


def test_it_is_what_deepspeed_takes() -> None:
    deepspeed = pytest.importorskip("deepspeed")
    for made in all_stages().values():
        taken = deepspeed.runtime.config.DeepSpeedConfig({**made, "zero_optimization": _filled(made)})
        assert taken.zero_config.stage == made["zero_optimization"]["stage"]


def _filled(made: dict[str, Any]) -> dict[str, Any]:
    """transformers fills the `auto` in."""
    return {name: 640 if value == "auto" else value for name, value in made["zero_optimization"].items()}


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(all_stages(), indent=2) + "\n", encoding="utf-8")
