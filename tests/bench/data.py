"""What data cost before the first step: preparing them beside TRL's own preparation, the gates, and the layout.

Both sides prepare the same generated chats with the same tokenizer and template, masks included, on the same cores: the
rate of sft-job counts its whole program from start to end, that of SFTTrainer only its `_prepare_dataset`.
Run as `python -m tests.bench.data [--quick] [REPEATS]`; the table is Markdown.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt

from job.cores import usable_cores
from job.training.batches import Schedule
from job.training.layout import Quality, Spread, lay_out, quality
from tests.bench.cost import cost
from tests.bench.data_place import make_tokenizer, run_folder, write_chats
from tests.bench.memory import Peak, peak_of
from tests.harness import environment

GIB = 1 << 30
LAID_OUT_ROWS, BATCH_ROWS, RANKS, BUDGET_TOKENS = 1_000_000, 512, 8, 8192
MEDIAN_TOKENS, SPREAD, LONGEST_TOKENS = 330, 0.9, 4096  # chats: lognormal lengths
VERSIONS = ("trl", "transformers", "tokenizers", "datasets", "pyarrow")


@dataclass(frozen=True)
class Line:
    """One figure and what it is held against."""

    what: str
    limit: str
    found: str
    is_met: bool = True

    def __str__(self) -> str:
        return f"| {self.what} | {self.limit} | {self.found} | {'' if self.is_met else 'MISSED'} |"


@dataclass(frozen=True)
class Prepared:
    rows: int
    wall_seconds: float
    cpu_seconds: float
    peak: Peak

    @property
    def rate(self) -> float:
        return self.rows / self.wall_seconds


class Ground:
    """A folder with the tokenizer and the files of chats, each written once."""

    def __init__(self, root: Path) -> None:
        self.root, self.tokenizer, self._made = root, root / "tokenizer", 0
        make_tokenizer(self.tokenizer)

    def chat(self, rows: int) -> Path:
        path = self.root / f"chat-{rows}.jsonl"
        return path if path.exists() else write_chats(path, rows)

    def prepare(self, rows: int) -> Prepared:
        """`python -m job.prepare`, from its start to its end."""
        self._made += 1
        run = run_folder(self.root / f"run-{self._made}", self.tokenizer, self.chat(rows))
        began = time.monotonic()
        command = [sys.executable, "-m", "job.prepare", str(run.path)]
        with cost() as took, subprocess.Popen(command) as process, peak_of(process) as peak:
            code = process.wait()
        wall_seconds = time.monotonic() - began
        assert code == 0, run.read_error(0)
        assert json.loads((run.prepared / "summary.json").read_text(encoding="utf-8"))["rows"] == rows
        for shard in run.prepared.iterdir():  # a million rows take a gigabyte
            shard.unlink()
        return Prepared(rows, wall_seconds, took.cpu_seconds, peak)

    def prepare_with_trl(self, rows: int) -> tuple[float, float]:
        """(rows per second, CPU seconds) of SFTTrainer's own preparation, in a process and with a cache of its own."""
        self._made += 1
        out = self.root / f"trl-{self._made}"
        out.mkdir()
        command = [sys.executable, "-m", "tests.bench.trl_preparation", str(self.tokenizer), str(self.chat(rows))]
        env = environment(out / "home", {"HF_HOME": str(out / "hf"), "HF_HUB_OFFLINE": "1"})
        done = subprocess.run([*command, str(usable_cores()), str(out)], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["rows"] == rows
        return rows / float(found["seconds"]), float(found["cpu_seconds"])


def preparing(ground: Ground, most: int, fewer: int, gated: int, repeats: int) -> Iterator[Line]:
    ours, theirs, gates = [], [], []
    for _ in range(repeats):  # in turns: what else the machine does meets all of them
        ours.append(ground.prepare(fewer))
        theirs.append(ground.prepare_with_trl(fewer))
        gates.append(ground.prepare(gated).cpu_seconds)
    large = ground.prepare(most)
    small_bytes = statistics.median(one.peak.bytes for one in ours)
    rate, other = statistics.median(one.rate for one in ours), statistics.median(each for each, _ in theirs)
    used, others = statistics.median(one.cpu_seconds for one in ours), statistics.median(each for _, each in theirs)
    yield Line(
        f"preparing {most:,} chats: peak memory of all {large.peak.processes} processes (PSS)", "1.50 GiB",
        f"{large.peak.bytes / GIB:.2f} GiB", large.peak.bytes <= 1.5 * GIB,
    )  # fmt: skip
    growth = large.peak.bytes / small_bytes
    yield Line(f"... over that for {fewer:,}", "1.20", f"{growth:.2f}", growth <= 1.2)
    yield Line(f"... rows per second, of {most:,}", "", f"{large.rate:,.0f} ({large.cpu_seconds:.0f} CPU s)")
    yield Line(f"... rows per second, of {fewer:,}", "", f"{rate:,.0f} (SFTTrainer {other:,.0f})")
    yield Line("... over SFTTrainer's on the same rows", "2.0", f"{rate / other:.1f}", rate >= 2 * other)
    yield Line("... CPU seconds of SFTTrainer's over ours", "", f"{others / used:.1f} ({others:.0f} / {used:.0f})")
    spent = statistics.median(gates)
    yield Line(f"start to verdict of the gates on {gated:,} rows", "5.0 CPU s", f"{spent:.1f} CPU s", spent < 5)


def laying_out(rows: int, repeats: int) -> Iterator[Line]:
    drawn = np.random.Generator(np.random.PCG64(1)).lognormal(np.log(MEDIAN_TOKENS), SPREAD, rows)
    lengths = np.clip(drawn, 8, LONGEST_TOKENS).astype(np.int64)
    spent = []
    for number in range(repeats):
        began = time.process_time()
        alone = epoch(lengths, 1, number)
        spent.append(time.process_time() - began)
    spent_seconds = statistics.median(spent)
    spread = quality(epoch(lengths, RANKS, 0), BUDGET_TOKENS)
    one: Quality = quality(alone, BUDGET_TOKENS)
    what = f"an epoch of {rows:,} rows laid out, {BATCH_ROWS} a step"
    yield Line(what, "5.0 CPU s", f"{spent_seconds:.1f} CPU s", spent_seconds < 5)
    full = f"tokens in full micro-batches of {BUDGET_TOKENS:,}, 1 rank"
    yield Line(full, "0.950", f"{one.in_full:.3f} (filled {one.filled:.3f})", one.in_full >= 0.95)
    over = f"most loaded of {RANKS} ranks over the mean, {BATCH_ROWS // RANKS} rows a rank"
    yield Line(over, "2.00 %", f"{spread.imbalance:.2%} (filled {spread.filled:.3f})", spread.imbalance < 0.02)


def epoch(lengths: npt.NDArray[np.int64], ranks: int, seed: int) -> list[tuple[list[int], Spread]]:
    """(lengths, layout) of each step, as a rank makes them."""
    schedule = Schedule(len(lengths), BATCH_ROWS, 1, None, seed)
    steps = []
    for step in range(1, schedule.steps + 1):
        of_rows = lengths[schedule.rows_of(step)].tolist()
        steps.append((of_rows, lay_out(of_rows, ranks, BUDGET_TOKENS)))
    return steps


def main(*arguments: str) -> None:
    is_quick = "--quick" in arguments
    repeats = next((int(argument) for argument in arguments if argument.isdigit()), 1 if is_quick else 3)
    most, fewer, gated = (60_000, 30_000, 2_000) if is_quick else (1_000_000, 100_000, 10_000)
    used = ", ".join(f"{name} {metadata.version(name)}" for name in VERSIONS)
    print(f"Data: {usable_cores()} cores, medians of {repeats} runs in turns; {used}\n")
    print("| what | limit | measured | |\n|---|---|---|---|", flush=True)
    for line in laying_out(LAID_OUT_ROWS // 10 if is_quick else LAID_OUT_ROWS, repeats):
        print(line, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for line in preparing(Ground(Path(folder)), most, fewer, gated, repeats):
            print(line, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
