"""Each guard is taken away in a copy of the tree; then the test that is named for it fails, and fails by itself."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.harness import ROOT
from tests.mutation.guards import GUARDS, Guard

PATIENCE_SECONDS = 800.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(PATIENCE_SECONDS + 60)]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    copy = tmp_path_factory.mktemp("mutated") / "tree"
    left_out = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("job", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=left_out)
    shutil.copy(ROOT / "pyproject.toml", copy)
    yield copy
    shutil.rmtree(copy)


def tried(tree: Path, tests: Iterable[str]) -> tuple[int, str]:
    """(pytest's exit code, its output)."""
    command = [sys.executable, "-m", "pytest", "-q", "-rf", "--no-header", "-p", "no:cacheprovider", "--tb=short"]
    done = subprocess.run(
        [*command, *tests],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_ADDOPTS": ""},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("guard", GUARDS.values(), ids=GUARDS.keys())
def test_without_the_guard_its_test_fails(tree: Path, guard: Guard) -> None:
    place = tree / guard.file
    text = place.read_text(encoding="utf-8")
    assert text.count(guard.old) == 1, f"{guard.file} changed: what this table takes away is not there once"
    place.write_text(text.replace(guard.old, guard.new), encoding="utf-8")
    try:
        code, output = tried(tree, [guard.killer])
    finally:
        place.write_text(text, encoding="utf-8")
    assert code == 1, output
    assert f"FAILED {guard.killer}" in output and "1 failed" in output, output


def test_with_all_guards_these_tests_pass(tree: Path) -> None:
    """So they fail for want of the guard, not for any other reason."""
    killers = {guard.killer for guard in GUARDS.values()}
    code, output = tried(tree, sorted(killers))
    assert code == 0 and f"{len(killers)} passed" in output, output
