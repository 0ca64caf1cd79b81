"""What is to be known of the data, in one list of facts: the terminal and the page show the same."""

from collections.abc import Iterator
from dataclasses import dataclass

from job.inspection import Batch, Example, Inspection
from job.report.histogram import percent
from job.report.wording import counted

SHOWN_SOURCES = 6
MASKED = -100  # the label of a token that is not trained


@dataclass(frozen=True)
class Fact:
    name: str  # empty: goes on with the one before
    value: str
    odd: bool = False  # worth a second look


def facts(found: Inspection) -> list[Fact]:
    return [
        *_sources(found),
        *_amounts(found),
        *_too_long(found),
        *_ends_and_beginnings(found),
        *_repeats(found),
        *_course(found),
    ]


def _sources(found: Inspection) -> Iterator[Fact]:
    sources = found["summary"].get("sources") or []
    for number, source in enumerate(sources[:SHOWN_SOURCES]):
        rows = [counted(source["rows"], "row")] if source.get("rows") else []
        held = [f"{source['eval_rows']:,} for evaluation"] if source.get("eval_rows") else []
        weight = f", weight {source['weight']:g}" if source.get("weight") not in (None, 1) else ""
        format_ = source.get("format") or "no row used"
        amount = " and ".join(rows + held) or "no row used"
        yield Fact("" if number else "data", f"{source['uri']}: {format_}, {amount}{weight}", odd=not (rows or held))
    if len(sources) > SHOWN_SOURCES:
        yield Fact("", f"and {counted(len(sources) - SHOWN_SOURCES, 'more file')}")
    if not sources:
        yield Fact("data", f"format {', '.join(found['summary']['formats'])}")


def _amounts(found: Inspection) -> Iterator[Fact]:
    summary = found["summary"]
    held = f" and {summary['eval_rows']:,} for evaluation" if summary["eval_rows"] else ", none for evaluation"
    yield Fact("rows", f"{summary['rows']:,} for training{held}")
    share = summary["trained_tokens"] / summary["tokens"]
    yield Fact(
        "tokens",
        f"{summary['tokens']:,}, of which {summary['trained_tokens']:,} trained ({percent(share)})",
        odd=share == 1.0 and summary["chat"],
    )
    lengths = found["lengths"]
    shortest, longest = lengths["shortest"], lengths["longest"]
    spread = f"{shortest:,} to {longest:,} tokens, median {lengths['median']:,}, 95% have at most {lengths['p95']:,}"
    yield Fact("a row", spread if longest > shortest else counted(longest, "token"))


def _too_long(found: Inspection) -> Iterator[Fact]:
    summary = found["summary"]
    seen = summary.get("seen") or summary["rows"] + summary["eval_rows"] + sum(summary["dropped"].values())
    happened = [(sum(summary["dropped"].values()), "left out"), (summary["truncated"], "cut")]
    happened.append((summary.get("split", 0), "split"))
    said = [f"{rows:,} {what} ({percent(rows / seen)})" for rows, what in happened if rows]
    limit = f"longer than data.max_length {found['max_length']:,}"
    value = f"{', '.join(said)} of {counted(seen, 'row')}: {limit}" if said else f"no row is {limit}"
    yield Fact("too long", value, odd=bool(said))


def _ends_and_beginnings(found: Inspection) -> Iterator[Fact]:
    summary, names = found["summary"], ", ".join(found["ends"]) or "no such token"
    rate = summary.get("end_of_turn_rate")
    if rate is None:
        yield Fact("end of turn", names)
    else:
        yield Fact("end of turn", f"a target in {percent(rate)} of the rows: {names}", odd=rate < 1)
    bos = summary["bos_per_row"]
    if not bos:
        yield Fact("BOS", "this tokenizer has none")
    elif bos[0] == bos[1]:
        yield Fact("BOS", f"{bos[0]} in every row", odd=bos[1] > 1)
    else:
        yield Fact("BOS", f"{bos[0]} to {bos[1]} in a row", odd=True)


def _repeats(found: Inspection) -> Iterator[Fact]:
    summary = found["summary"]
    if "duplicates" not in summary:
        return
    twice, both = summary["duplicates"], summary["overlap"]
    said = [f"{counted(twice, 'training row')} ({percent(twice / summary['rows'])})"] if twice else []
    said += [f"{both:,} of {counted(summary['eval_rows'], 'evaluation row')} among the training rows"] if both else []
    yield Fact("repeated", ", ".join(said) or "no row", odd=bool(said))


def _course(found: Inspection) -> Iterator[Fact]:
    plan, layout = found["schedule"], found["layout"]
    epochs = f"{plan['epochs']:.3g}"
    yield Fact(
        "steps",
        f"{plan['steps']:,} in {epochs} {'epoch' if epochs == '1' else 'epochs'}: {plan['steps_per_epoch']:,} an epoch "
        f"of {counted(plan['epoch_rows'], 'row')}, {plan['global_batch_size']:,} rows a step",
    )
    yield Fact(
        "layout",
        f"{counted(layout['ranks'], 'rank')}, micro-batches of at most {layout['token_budget']:,} tokens: "
        f"{layout['micro_batches']:.1f} a step, {percent(layout['filled'])} filled"
        + (f", imbalance {layout['imbalance']:.1%}" if layout["ranks"] > 1 else "")
        + f" (over {counted(layout['steps'], 'step')})",
    )


def batch_title(batch: Batch) -> str:
    tokens = sum(row["tokens"] for row in batch["rows"])
    trained = sum(row["trained"] for row in batch["rows"])
    return (
        f"Step {batch['step']:,}, epoch {batch['epoch']}: {counted(len(batch['rows']), 'row')}, {tokens:,} tokens, "
        f"{trained:,} trained"
    )


def micro_batches(batch: Batch) -> list[str]:
    """A line for each rank: how many rows and tokens each of its micro-batches has."""
    tokens = {row["row"]: row["tokens"] for row in batch["rows"]}
    lines = []
    for rank, micros in enumerate(batch["ranks"]):
        said = [f"{counted(len(micro), 'row')}, {sum(tokens[row] for row in micro):,} tokens" for micro in micros]
        lines.append(f"rank {rank}: {' | '.join(said) or 'only takes part'}")
    return lines


def example_title(example: Example) -> str:
    share = percent(example["trained"] / example["tokens"])
    step = f"step {example['step']:,}" if example["step"] is not None else "in no step of this run"
    return (
        f"Row {example['row']}, {example['source']}, {step}: "
        f"{counted(example['tokens'], 'token')}, {example['trained']:,} trained ({share})"
    )


def is_target(position: int, label: int) -> bool:
    """Of one token: nothing predicts the first one of a row."""
    return position > 0 and label != MASKED
