"""A folder from which jobs are submitted."""

from pathlib import Path

import pytest

from tests.batching import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "submitted from here")
