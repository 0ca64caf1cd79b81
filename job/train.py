"""The story of a rank: read the inputs and the checkpoint, train, snapshot, leave the tuned model behind.

Started by the supervisor as `python -m job.train RUN_DIR`, with torchrun's environment variables where there are
several. It touches no network but its peers': what it needs lies in the run folder, what it makes it leaves there.
"""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from job.rundir import EventWriter, RunDir, Spec
from job.training.process import bind_to_parent, leave, show_stacks_when_asked
from job.training.unused import leave_out_unused

if __name__ == "__main__":
    bind_to_parent()  # before the imports below, which take seconds: a rank never outlives its supervisor
    show_stacks_when_asked(RunDir(Path(sys.argv[1])), int(os.environ.get("RANK", "0")))
    leave_out_unused(RunDir(Path(sys.argv[1])))

import torch
import torch.distributed as dist

from job.config import RunConfig
from job.errors import ConfigError, HardwareError, OutOfMemory, Stopped
from job.training.arguments import trainer_arguments
from job.training.batches import Schedule
from job.training.conductor import Conductor, Samples
from job.training.dataset import PreparedRows
from job.training.final import base_dtype, write_final
from job.training.hooks import hooks_of
from job.training.measures import layout as measured_layout
from job.training.model import compute_dtype, load_model
from job.training.peers import meet
from job.training.sample import generate
from job.training.snapshot import TRAINABLE, hooks_state, restore_parameters, under_all_names
from job.training.steps import Layout
from job.training.stored import Stored
from job.training.tokenizer import load_tokenizer
from job.training.trainer import Trainer

# What has no error of its own: torch's allocator on the CPU, then CUDA, cuBLAS, and NCCL beside torch's cache.
REFUSED = re.compile("can't allocate memory|out of memory|ALLOC_FAILED")


def train(run: RunDir, rank: int) -> None:
    """Raises: every JobError a rank can cause; Stopped when it left on request."""
    spec = Spec.read(run)
    config = RunConfig.from_dict(spec.config)
    try:
        train_as_told(run, rank, spec, config)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise OutOfMemory(f"out of memory with micro-batches of {config.token_budget:,} tokens") from error


def train_as_told(run: RunDir, rank: int, spec: Spec, config: RunConfig) -> None:
    events = EventWriter(run.events if rank == 0 else Path(os.devnull))
    device = chosen_device()
    summary = json.loads((run.prepared / "summary.json").read_text(encoding="utf-8"))
    meet(spec, summary["fingerprint"], device)
    rows = PreparedRows(run.prepared)
    evaluation = PreparedRows.of_evaluation(run.prepared)
    model_config = config.model
    tokenizer = load_tokenizer(
        run.tokenizer, summary["chat_template"], model_config.trust_remote_code, model_config.add_tokens
    )
    schedule = Schedule.of(config, len(rows), summary.get("parts", ()))

    dtype = compute_dtype(config, device.type)
    arguments = trainer_arguments(run, config, schedule, device, dtype)  # zero3 has to be known before a model is made
    init = run.init if config.model.init is not None and spec.resume_step is None else None
    model = load_model(run.base, config, str(device), init, len(tokenizer))
    if not config.parallel.strategy.startswith("zero") and config.model.quantize is None:  # these are placed already
        model.to(device)
    at = Layout(rank, int(os.environ.get("WORLD_SIZE", "1")), config.token_budget, False, device)

    def sample(stopped: Callable[[], bool]) -> Samples:
        made = generate(
            conductor.trainer.model,
            tokenizer,
            config.samples.prompts,
            chat=summary["chat"],
            max_new_tokens=config.samples.max_new_tokens,
            temperature=config.samples.temperature,
            top_p=config.samples.top_p,
            seed=config.train.seed,
            eos_ids=summary["end_of_turn_ids"],
            stopped=stopped,
            autocast=dtype if dtype == torch.bfloat16 else None,
            together=conductor.trainer.held.sharded,
        )
        return [{"prompt": one.prompt, "generation": one.generation} for one in made]

    def announced(trainer: Trainer) -> None:
        announce(events, trainer, config.parallel.strategy, dtype, spec.resume_step or 0)

    hooks = hooks_of(run, config.hooks)
    callbacks = hooks.begun(config.to_dict(), saved_by_hooks(run, spec, rank))
    conductor = Conductor(run, spec, config, schedule, rank, events, evaluation, sample, hooks, announced)
    resume = None if spec.resume_step is None else (spec.resume_step, run.resume)
    try:
        trainer = Trainer(model, tokenizer, arguments, rows, schedule, at, conductor, resume, dtype)
    except ValueError as error:  # what TRL refuses to train, an adapter on the head for instance
        raise ConfigError(f"TRL refuses this run: {str(error).splitlines()[0]}") from error
    for callback in callbacks:
        trainer.add_callback(callback)
    conductor.trainer = trainer
    trainer.train()
    if not conductor.over and conductor.last_step < schedule.steps:
        raise ConfigError(
            f"{config.hooks} ended the training after step {conductor.last_step}, which only sft-job does: "
            "use train.max_steps or best.patience"
        )
    events.write("finishing")
    conductor.finish()
    if conductor.stopped:
        raise Stopped(f"stopped on request ({run.stop_requested()})")
    publish(run, spec, config, conductor, tokenizer, summary, rank)


def out_of_memory(error: BaseException) -> bool:
    """Whoever refused it: torch, CUDA, one of its libraries, or Python."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or REFUSED.search(str(error)) is not None


def saved_by_hooks(run: RunDir, spec: Spec, rank: int) -> Any:
    """What the user's own code knew at the step to go on from; only rank 0's node has it on disk."""
    if spec.resume_step is None:
        return None
    found = [hooks_state(run.resume) if rank == 0 else None]
    if dist.is_initialized():
        dist.broadcast_object_list(found, 0)
    return found[0]


def chosen_device() -> torch.device:
    """What the supervisor promised. Raises: HardwareError when torch does not see it; never a silent run on the CPU."""
    if os.environ["SFT_JOB_DEVICE"] == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise HardwareError(
            f"GPUs are visible but torch {torch.__version__} cannot use them: its build or the driver does not fit; "
            "`nvidia-smi` and `python -c 'import torch; torch.cuda.init()'` say more"
        )
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def announce(events: EventWriter, trainer: Trainer, strategy: str, dtype: torch.dtype, done: int) -> None:
    model, at, rows, schedule = trainer.model, trainer.layout, trainer.rows, trainer.schedule
    sizes = [(getattr(one, "ds_numel", one.numel()), one.requires_grad) for one in model.parameters()]
    held = sum(one.ds_tensor.ds_numel if hasattr(one, "ds_tensor") else one.numel() for one in model.parameters())
    events.write(
        "training",
        steps=schedule.steps,
        step=done,
        rows=len(rows),
        parameters=sum(size for size, trained in sizes if trained),
        all_parameters=sum(size for size, _ in sizes),
        held_parameters=held,  # by this rank, under zero3 its part
        computing=str(dtype).removeprefix("torch."),
        ranks=at.world_size,
        device=at.device.type,
        strategy=strategy,
        layout=spoken_layout(rows, schedule, at),
    )


def spoken_layout(rows: PreparedRows, schedule: Schedule, at: Layout) -> str:
    said = f"{'padded' if at.padded else 'padding-free'} micro-batches of at most {at.token_budget:,} tokens"
    if at.padded:
        return said
    found = measured_layout(rows.lengths, schedule, at.world_size, at.token_budget)
    uneven = f", ranks within {found['imbalance']:.1%} of each other" if at.world_size > 1 else ""
    return f"{said}, {found['filled']:.0%} full{uneven}"


def publish(
    run: RunDir, spec: Spec, config: RunConfig, conductor: Conductor, tokenizer: Any, summary: dict[str, Any], rank: int
) -> None:
    """Rank 0 writes the result's files; the best evaluation's tensors where `best.final` asks for them."""
    if not conductor.sample_at_end():
        raise Stopped("stopped while sampling at the end; the last step is in the last commit")
    model, tensors = conductor.trainer.model, conductor.trainer.held.tensors()
    if rank != 0:
        return
    if config.best.final == "best" and run.best.exists():
        if tensors is None:
            restore_parameters(run.best, model)
        else:
            best = Stored(run.best / TRAINABLE)
            tensors = {name: best.tensor(name) for name in best.shapes}
    write_final(
        run.final,
        model,
        tokenizer,
        base_source=spec.base_source,
        eos_ids=summary["end_of_turn_ids"],
        dtype=base_dtype(run.base),
        state_dict=None if tensors is None else under_all_names(tensors, model),
    )


def main() -> None:
    run, rank = RunDir(Path(sys.argv[1])), int(os.environ.get("RANK", "0"))
    code = leave(run, rank, lambda: train(run, rank))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # nothing of torch's or NCCL's shutdown may hang or change the code


if __name__ == "__main__":
    main()
