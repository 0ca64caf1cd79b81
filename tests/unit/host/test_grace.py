"""The config's own grace first, then what the job's script knows of its scheduler, then the default."""

from typing import Any

import pytest

from job.config import RunConfig
from job.errors import ConfigError
from job.host.grace import GRACE, grace_seconds


def config(**fields: Any) -> RunConfig:
    tree = {"run": "/runs/a", "model": {"base": "/base"}, "data": {"train": ["/d.jsonl"]}, "lora": None}
    return RunConfig.from_dict({**tree, **fields})


@pytest.mark.parametrize(
    ("fields", "told", "seconds"),
    [
        ({}, "", 30),
        ({}, "120", 120),
        ({}, " 2m ", 120),
        ({"grace": "45s"}, "120", 45),
        ({"grace": "45s"}, "nonsense", 45),
        ({"max_time": "1h"}, "120s", 120),
    ],
)
def test_the_config_comes_before_the_scheduler(fields: dict[str, Any], told: str, seconds: float) -> None:
    assert grace_seconds(config(**fields), {GRACE: told}) == seconds
    assert grace_seconds(config(**fields), {}) == config(**fields).grace_seconds


@pytest.mark.parametrize("told", ["soon", "0", "-5", "1:30", "nan"])
def test_what_is_no_time_is_refused_with_an_example(told: str) -> None:
    with pytest.raises(ConfigError, match=r"SFT_JOB_GRACE is .*: give seconds, or a duration like 120s"):
        grace_seconds(config(), {GRACE: told})


def test_an_attempt_that_would_have_to_stop_before_it_began_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"max_time: 2m is over before a stop, which takes SFT_JOB_GRACE \(120s\)"):
        grace_seconds(config(max_time="2m"), {GRACE: "120"})
