"""One stop step: a stop that reaches one of two nodes, at any skew, ends both ranks after the same step."""

import socket
import subprocess
import sys
from pathlib import Path

from tests.harness import environment

ROUNDS, STEPS, SEED = 40, 12, 20240917


def test_a_stop_that_reaches_one_rank_only_ends_both_after_the_same_step(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "agreeing_rank.py"), str(tmp_path), *map(str, arguments)],
            env=environment(
                tmp_path / "home",
                {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
            ),
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank, arguments in enumerate([(ROUNDS, STEPS, SEED)] * 2)
    ]
    try:
        said = [[line.split() for line in rank.communicate(timeout=240)[0].splitlines()] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert [rank.returncode for rank in ranks] == [0, 0]
    assert said[0] == said[1] and len(said[0]) == ROUNDS
    assert all(stopped == when for _, when, stopped in said[0])
    assert len({when for _, when, _ in said[0]}) > 5
