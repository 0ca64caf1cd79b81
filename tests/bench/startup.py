"""What it costs to be told something: CPU seconds of `--help`, of the schema, and of a config error.

Run as `python -m tests.bench.startup [REPEATS]`.
"""

import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.cost import cost
from tests.harness import environment

WRONG = "run: runs/one\nmodel: {bas: models/tiny}\ndata: {train: [chat.jsonl]}\nlora: {}\ntrain: {lr: 2e-4}\n"
LIMIT_SECONDS = 0.5


def main(repeats: int = 7) -> None:
    table = Table(
        "sft-job", "CPU s, median", "worst", "limit", title=f"{repeats} runs, Python {platform.python_version()}"
    )
    with tempfile.TemporaryDirectory() as folder:
        wrong = Path(folder) / "wrong.yaml"
        wrong.write_text(WRONG, encoding="utf-8")
        for shown, arguments, code in (
            ("--help", ["--help"], 0),
            ("schema", ["schema"], 0),
            ("run with 3 mistakes in the config", ["run", str(wrong)], 78),
        ):
            spent = []
            for _ in range(repeats):
                with cost() as took:
                    done = subprocess.run(
                        [sys.executable, "-m", "job", *arguments], env=environment(Path(folder)), capture_output=True
                    )
                assert done.returncode == code, done.stderr.decode()
                spent.append(took.cpu_seconds)
            table.add_row(shown, f"{statistics.median(spent):.2f}", f"{max(spent):.2f}", f"{LIMIT_SECONDS}")
    Console().print(table)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
