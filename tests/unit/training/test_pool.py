"""Forked workers: results in order, nobody left behind, and every end is a clear one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest

from job.cores import usable_cores
from job.errors import DataError, RankCrashed, Stopped
from job.training.pool import WINDOW, in_order

ROOT = Path(__file__).parents[3]
DEADLINE_SECONDS = 60
BEFORE: set[int] = set()


@pytest.fixture(autouse=True)
def others() -> None:
    """Children of this process that are not the pool's: servers, and what tests before left to be reaped."""
    BEFORE.clear()
    BEFORE.update(child.pid for child in psutil.Process().children())


def nothing() -> None:
    pass


def workers_left() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child.pid not in BEFORE]


def squared(number: int) -> int:
    time.sleep(0.02 * (number % 3))  # so that they are done in another order
    return number * number


def results(work: Callable[[int], object], items: Iterator[int], workers: int = 3) -> list[object]:
    with closing(in_order(work, items, workers, nothing)) as given:
        return list(given)


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_results_come_in_the_items_order_for_any_number_of_workers(workers: int) -> None:
    assert results(squared, iter(range(20)), workers) == [number * number for number in range(20)]
    assert results(squared, iter([]), workers) == []
    assert not workers_left()


def test_few_items_are_taken_ahead_of_a_slow_one() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(200):
            taken.append(number)
            yield number

    with closing(in_order(lambda number: time.sleep(0 if number else 1), items(), 2, nothing)) as given:
        next(given)
        assert len(taken) <= 2 * WINDOW + 1


def test_large_items_and_results_pass_both_ways() -> None:
    large = [np.full(300_000, number) for number in range(6)]
    with closing(in_order(lambda array: array + 1, iter(large), 2, nothing)) as given:
        assert [int(array[-1]) for array in given] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_the_work_raises_is_raised_at_its_turn(workers: int) -> None:
    def refuse(number: int) -> int:
        time.sleep(0.2 if number == 3 else 0)
        if number >= 3:
            raise DataError(f"row {number}")
        return number

    given = in_order(refuse, iter(range(9)), workers, nothing)
    with closing(given):
        assert [next(given) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(DataError, match="row 3"):
            next(given)


def test_an_error_nobody_foresaw_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RankCrashed, match="ZeroDivisionError: "):
        results(lambda number: 1 // number, iter([0]))
    assert "Traceback" in capfd.readouterr().err


@pytest.mark.parametrize("workers", [0, 2])
def test_what_the_items_raise_is_raised_behind_all_results_before_it(workers: int) -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise DataError("the file is damaged")

    given = in_order(squared, items(), workers, nothing)
    with closing(given):
        assert [next(given) for _ in range(5)] == [0, 1, 4, 9, 16]
        with pytest.raises(DataError, match="damaged"):
            next(given)


def test_a_worker_that_is_killed_is_a_clear_error_and_the_others_end() -> None:
    def die(number: int) -> int:
        if number == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with pytest.raises(RankCrashed, match="ended by SIGKILL, as the system does where memory runs out"):
        results(die, iter(range(50)))
    assert not workers_left()


def test_a_stop_ends_the_work_while_every_worker_is_busy() -> None:
    polls = iter(range(5))

    def stop() -> None:
        if next(polls, None) is None:
            raise Stopped("stopped")

    with pytest.raises(Stopped), closing(in_order(time.sleep, iter([3600.0] * 4), 2, stop)) as given:
        next(given)
    assert not workers_left()


def test_no_worker_outlives_a_killed_parent() -> None:
    program = (
        "import os, time\n"
        "from job.training.pool import in_order\n"
        "def work(number):\n"
        "    os.write(1, f'{os.getpid()}\\n'.encode())\n"
        "    time.sleep(3600)\n"
        "list(in_order(work, iter([1, 2, 3]), 3, lambda: None))\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [psutil.Process(int(parent.stdout.readline())) for _ in range(3)]
        assert len({worker.pid for worker in workers} - {parent.pid}) == 3
        parent.kill()
    _, alive = psutil.wait_procs(workers, timeout=DEADLINE_SECONDS)
    assert alive == []


# ---- how many


def put(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="ascii")


@pytest.mark.parametrize(
    "files, most",
    [
        ({}, 1000),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 1000),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n"}, 1),  # of a group above
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/pod\n2:memory:/pod\n",
                "sys/fs/cgroup/cpu/pod/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu/pod/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            1000,
        ),
    ],
)
def test_cores_are_those_that_binding_and_quotas_leave(tmp_path: Path, files: dict[str, str], most: int) -> None:
    for name, text in files.items():
        put(tmp_path, name, text)
    assert usable_cores(tmp_path) == min(most, len(os.sched_getaffinity(0)))
