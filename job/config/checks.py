"""What fields say about each other, and names that belong to TRL and peft."""

import fnmatch
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from job.config.mistakes import Mistake
from job.config.trl_fields import peft_mistakes, trl_mistakes

if TYPE_CHECKING:
    from job.config.schema import RunConfig

# What a schedule cannot be built without; it stands under trl.lr_scheduler_kwargs.
_SCHEDULE_NEEDS = {
    "cosine_with_min_lr": ("min_lr", "min_lr_rate"),
    "cosine_warmup_with_min_lr": ("min_lr", "min_lr_rate"),
    "warmup_stable_decay": ("num_decay_steps",),
}
EVALUATED = ("eval_loss", "eval_perplexity")


def disagreements(config: "RunConfig") -> Iterator[Mistake]:
    """Every mistake that no field has by itself."""
    yield from _training(config)
    yield from _places(config)
    yield from trl_mistakes(config.trl)
    yield from peft_mistakes(config.peft, with_lora=config.lora is not None)


def _training(config: "RunConfig") -> Iterator[Mistake]:
    train, best = config.train, config.best
    length = ("data", "max_length")
    if train.token_budget != "auto" and train.token_budget < config.data.max_length:
        text = f"{train.token_budget} is below data.max_length, {config.data.max_length}: raise it"
        yield Mistake(("train", "token_budget"), text, also=(length,))
    if train.optim == "adamw_8bit" and config.parallel.strategy not in ("auto", "single", "ddp"):
        text = f"adamw_8bit works with single and ddp only, not {config.parallel.strategy}; write adamw"
        yield Mistake(("train", "optim"), text, also=(("parallel", "strategy"),))
    needed = _SCHEDULE_NEEDS.get(train.lr_scheduler_type, ())
    given = config.trl.get("lr_scheduler_kwargs")
    if needed and not (isinstance(given, dict) and any(name in given for name in needed)):
        text = f"{train.lr_scheduler_type} needs trl.lr_scheduler_kwargs, like {{{needed[0]}: ...}}"
        yield Mistake(("train", "lr_scheduler_type"), text, also=(("trl",),))
    if best.metric not in EVALUATED and config.hooks is None:
        text = f"{best.metric} is not computed; write {' or '.join(EVALUATED)}, or give hooks with compute_metrics"
        yield Mistake(("best", "metric"), text, also=(("hooks",),))
    if config.data.eval is None:
        for name, asked in (("patience", best.patience is not None), ("final", best.final == "best")):
            if asked:
                text = "needs evaluations; give data.eval a share like 0.1 or a URI"
                yield Mistake(("best", name), text, also=(("data", "eval"),))
    if config.parallel.strategy == "single" and config.parallel.nproc_per_node not in ("auto", 1):
        text = f"single is one rank, and nproc_per_node is {config.parallel.nproc_per_node}; write ddp or auto"
        yield Mistake(("parallel", "strategy"), text, also=(("parallel", "nproc_per_node"),))
    if config.model.quantize is not None:
        if config.lora is None:
            yield Mistake(("model", "quantize"), "needs lora: four-bit weights are not trained", also=(("lora",),))
        if config.parallel.strategy == "zero3":
            text = f"{config.model.quantize} works without zero3, which would shard four-bit weights; write zero2"
            yield Mistake(("model", "quantize"), text, also=(("parallel", "strategy"),))
        if config.parallel.offload == "all":
            text = "all needs zero3, which would shard four-bit weights; write optimizer"
            yield Mistake(("parallel", "offload"), text, also=(("model", "quantize"),))
    if train.optim == "adamw_8bit" and config.parallel.offload != "none":
        text = f"{config.parallel.offload} needs ZeRO, and adamw_8bit single or ddp; write none, or train.optim: adamw"
        yield Mistake(("parallel", "offload"), text, also=(("train", "optim"),))
    if (offload := config.parallel.offload) != "none":
        able = ("auto", "zero3") if offload == "all" else ("auto", "zero1", "zero2", "zero3")
        if config.parallel.strategy not in able:
            text = f"{offload} needs {' or '.join(able[1:])}, not {config.parallel.strategy}"
            yield Mistake(("parallel", "offload"), text, also=(("parallel", "strategy"),))
    if config.lora is not None and "lm_head" in config.lora.target_modules:
        text = "an adapter on lm_head would never be trained; leave it out, or name it in lora.modules_to_save"
        yield Mistake(("lora", "target_modules"), text)
    limit = config.max_time_seconds
    if limit is not None and limit <= config.grace_seconds:
        text = (
            f"{config.max_time} is over before a stop, which takes grace ({config.grace_seconds:.0f}s); make it longer"
        )
        yield Mistake(("max_time",), text, also=(("grace",),))


def _places(config: "RunConfig") -> Iterator[Mistake]:
    model = config.model
    sources = [(("model", name), getattr(model, name)) for name in ("base", "tokenizer", "init")]
    sources += [(("data", "train"), source.uri) for source in config.data.train]
    sources += [(("data", "eval"), config.data.eval if isinstance(config.data.eval, str) else None)]
    for path, source in sources:
        if source and _inside(config.run, source):
            text = f"{config.run} lies inside {'.'.join(path)}, {source}; choose a folder of its own"
            yield Mistake(("run",), text, also=(path,))
    for bucket, options in config.storage.items():
        if "/" in bucket or ":" in bucket:
            yield Mistake(("storage", bucket), "is no bucket name; write the name alone, without s3:// and prefix")
        if options.sse_kms_key_id and not (options.sse or "").startswith("aws:kms"):
            yield Mistake(
                ("storage", bucket, "sse_kms_key_id"), "needs sse: aws:kms", also=(("storage", bucket, "sse"),)
            )
    for name, values in (("track", config.track), ("export", config.export)):
        if len(set(values)) < len(values):
            yield Mistake((name,), "names something twice; name each once")
    if not config.export:
        yield Mistake(("export",), "names nothing to export; write [adapter]")


def _inside(run: str, source: str) -> bool:
    """Whether the run folder is the source, lies below it, or is matched by its glob."""
    ours, theirs = _parts(run), _parts(source)
    if "**" in theirs:
        theirs = theirs[: theirs.index("**")]
    return len(ours) >= len(theirs) and all(map(fnmatch.fnmatchcase, ours, theirs))


def _parts(place: str) -> list[str]:
    scheme, separator, rest = place.partition("://")
    if separator:
        return [scheme, *(part for part in rest.split("/") if part)]
    return ["", *(part for part in os.path.abspath(place).split("/") if part)]  # noqa: PTH100 - no links are followed
