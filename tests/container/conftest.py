"""One image for all tests of a session, a network with a store in it, and runs of containers there."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bucket import Bucket
from tests.container import networks
from tests.container.building import Image, build
from tests.container.containers import CONFIG, Container
from tests.container.networks import Network
from tests.container.runtime import alone, missing, newest

BUILD_TIMEOUT_SECONDS = 1800  # the first test of a worker waits for the image, perhaps for the other worker's build
Start = Callable[..., Container]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that look at the image first of all, those that run it last: else every worker waits for its build."""
    of_image: list[pytest.Item] = []
    of_runs: list[pytest.Item] = []
    others: list[pytest.Item] = []
    for item in items:
        if not item.get_closest_marker("container"):
            others.append(item)
            continue
        item.add_marker(pytest.mark.timeout(BUILD_TIMEOUT_SECONDS))
        (of_image if item.path.name == "test_image.py" else of_runs).append(item)
    items[:] = [*of_image, *others, *of_runs]


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    if why := missing():
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    with alone():
        return build(newest(), tmp_path_factory.mktemp("image"))


@pytest.fixture
def start(image: Image, tmp_path: Path) -> Iterator[Start]:
    """Starts containers with the given arguments, options and environment; none is left."""
    started: list[Container] = []

    def begin(*arguments: str, options: tuple[str, ...] = (), environment: dict[str, str] | None = None) -> Container:
        started.append(Container(image, tmp_path, arguments, options, environment or {}))
        return started[-1]

    yield begin
    for container in started:
        container.remove()


@pytest.fixture(scope="session")
def network(image: Image) -> Iterator[Network]:
    with networks.network(image) as made:
        yield made


@pytest.fixture(scope="session")
def store(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with networks.store(network, tmp_path_factory.mktemp("store")) as bucket:
        yield bucket


@pytest.fixture
def begin(start: Start, store: Bucket, network: Network, tmp_path: Path) -> Start:
    """Starts `sft-job run` of a run in the store, which is all that can be reached; `fields` change its config."""

    def run(name: str, *fields: str, options: tuple[str, ...] = (), environment: dict[str, str] | None = None) -> Any:
        config = tmp_path / "run.yaml"
        config.write_text(CONFIG_TEXT.format(root=store.uri), encoding="utf-8")
        return start(
            *("run", CONFIG, "--set", f"run={store.uri}/runs/{name}", *(x for f in fields for x in ("--set", f))),
            options=(f"--network={network.name}", f"--volume={config}:{CONFIG}:ro", *options),
            environment={**store.env, **(environment or {})},
        )

    return run


CONFIG_TEXT = """
run: {root}/runs/default
model: {{base: "{root}/base"}}
data: {{train: ["{root}/chat.jsonl"], eval: 0.125, max_length: 64}}
lora: {{r: 8, alpha: 16, dropout: 0.0}}
train: {{max_steps: 60, global_batch_size: 8, learning_rate: 1e-2, logging_steps: 5, eval_steps: 30}}
checkpoint: {{every: 20 steps, keep: 2}}
parallel: {{device: cpu}}
"""
