"""A run's config, as small as it may be, and events as rank 0 writes them."""

from typing import Any

import pytest

from job.config import RunConfig


@pytest.fixture
def settings() -> dict[str, Any]:
    return {
        "run": "s3://runs/first",
        "model": {"base": "hf://org/base@0123456789abcdef0123456789abcdef01234567"},
        "data": {"train": ["s3://data/chat-*.jsonl"], "eval": 0.2},
        "lora": {"r": 8, "alpha": 16, "target_modules": ["q_proj", "v_proj"]},
        "train": {"global_batch_size": 4},
    }


@pytest.fixture
def config(settings: dict[str, Any]) -> RunConfig:
    return RunConfig.from_dict(settings)
