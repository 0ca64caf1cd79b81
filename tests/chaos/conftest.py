"""Fixtures of the chaos tests: one warm interpreter, and a laboratory in a folder and one on S3."""

import uuid
from collections.abc import Iterator

import pytest

from tests.chaos.experiment import Laboratory
from tests.chaos.laboratories import on_s3
from tests.chaos.warm import Warm


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    interpreter = Warm(tmp_path_factory.mktemp("warm") / "log")
    yield interpreter
    interpreter.close()


@pytest.fixture(scope="session")
def laboratory(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    made = Laboratory(tmp_path_factory.mktemp("chaos"), warm)
    made.left_alone("one")
    return made


@pytest.fixture
def laboratory_on_s3(warm: Warm, s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    with on_s3(warm, s3_endpoint, tmp_path_factory.mktemp("chaos-s3"), f"chaos-{uuid.uuid4().hex[:12]}") as made:
        yield made
