"""Looks at prepared rows with the tokenizer that made them: no torch, no weights.

Started as `python -m job.examine RUNDIR REQUEST.json ANSWER.json`; the request names the config, how many ranks there
would be, the row (null: the first that is trained), and how many more examples are asked for.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from job.config import RunConfig
from job.errors import ConfigError
from job.inspection import Examined
from job.rundir import RunDir, write_atomically
from job.training.batches import Schedule
from job.training.dataset import PreparedRows
from job.training.examples import Examples
from job.training.measures import layout, lengths, planned
from job.training.process import bind_to_parent, leave
from job.training.tokenizer import leave_torch_out, load_tokenizer


def examine(run: RunDir, config: RunConfig, *, ranks: int, row: int | None, more: int) -> Examined:
    """Raises: ConfigError where there is no such row; DataError where rows or tokenizer cannot be read."""
    summary = json.loads((run.prepared / "summary.json").read_text(encoding="utf-8"))
    rows = PreparedRows(run.prepared)
    if row is not None and row >= len(rows):
        there = f"the {len(rows)} training rows are numbered from 0 to {len(rows) - 1}"
        raise ConfigError(f"there is no row {row}: {there if len(rows) > 1 else 'the only training row is row 0'}")
    model = config.model
    tokenizer = load_tokenizer(run.tokenizer, summary["chat_template"], model.trust_remote_code, model.add_tokens)
    schedule = Schedule.of(config, len(rows), summary.get("parts", ()))
    examples = Examples(rows, schedule, tokenizer)
    example = examples.example(examples.first(1)[0] if row is None else row)
    step = example["step"]
    return {
        "example": example,
        "more": [examples.example(number) for number in examples.first(more)],
        "batch": None if step is None else examples.batch(step, ranks, config.token_budget),
        "schedule": planned(schedule),
        "layout": layout(rows.lengths, schedule, ranks, config.token_budget),
        "lengths": lengths(rows.lengths),
        "ends": [str(text) for text in tokenizer.convert_ids_to_tokens(summary["end_of_turn_ids"])],
    }


def main(arguments: Sequence[str]) -> int:
    bind_to_parent()
    leave_torch_out()
    folder, request, answer = map(Path, arguments)
    run = RunDir(folder)

    def story() -> None:
        asked: Mapping[str, Any] = json.loads(request.read_text(encoding="utf-8"))
        config = RunConfig.from_dict(asked["config"])
        found = examine(run, config, ranks=asked["ranks"], row=asked["row"], more=asked["more"])
        write_atomically(answer, json.dumps(found, ensure_ascii=False))

    return leave(run, 0, story)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
