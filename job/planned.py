"""A run planned before its first GPU hour: memory, steps, time, checkpoints, grace, disk. Nothing is claimed.

Reads the run's config, the base's config and headers, its tokenizer and a sample of the data; of a run that has begun,
what it prepared and measured. No weights are pulled, and torch is not needed. The plan goes to stdout.
"""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from job.budgets import chosen
from job.config import RunConfig
from job.config.deepspeed import deepspeed_config
from job.foreseen import Foreseen, foresee
from job.host.choice import FILLED, STRATEGIES, Choice, choose
from job.host.elsewhere import planned_machine
from job.host.estimate import checkpoint_bytes, estimate
from job.host.forecast import Times, disk_bytes, grace_needed_seconds, interval_seconds, step_flops, times
from job.host.gpus import Gpu
from job.host.grace import grace_seconds
from job.host.launch_plan import Surroundings, launch_plan, surroundings
from job.host.preemption import Stop
from job.host.shape import trained
from job.host.topology import Topology
from job.planning import Launched, Memory, Plan
from job.report.plan import show
from job.report.progress import stderr_console
from job.report.report import Report
from job.report.stdout import stdout_console
from job.settled import as_settled, read_run, refuse_another_run
from job.storage.records import RunRecord
from job.storage.store import is_local, open_store

PATIENCE_SECONDS = 20.0  # somebody waits for it
PORT = 29500  # in a launch plan; a run finds a free one


def plan(
    config: RunConfig,
    *,
    gpus_per_node: str | None = None,
    nodes: int | None = None,
    launch: bool = False,
    deepspeed: bool = False,
    as_json: bool = False,
) -> None:
    """Show the plan of a run on this machine, or on `nodes` of `gpus_per_node` (like `8xH100-80`).

    Call from the main thread. Raises: ConfigError for a machine that does not go with the config; what `run` raises for
    a base or data that are not there; StorageError; Stopped on a signal.
    """
    stop = Stop(0.0).listen()
    at, devices = planned_machine(config, gpus_per_node, nodes)
    report = Report(config, stderr_console())
    store = open_store(config.run, config.storage, PATIENCE_SECONDS, stop.requested)
    try:
        record = read_run(store)
        if record is not None:
            refuse_another_run(config, record)
        config = _settled(config, record, at, devices)
        seen = foresee(config, record, store, stop, report)
        choice, _, _ = chosen(config, seen.shape, devices, at, store, report.message)
    finally:
        report.close("stopped" if stop.requested() else "done")
    here = gpus_per_node is None and nodes is None
    found = planned(config, seen, at, devices, choice, launch=launch, deepspeed=deepspeed, here=here)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        show(stdout_console(), found)


def planned(
    config: RunConfig,
    seen: Foreseen,
    at: Topology,
    devices: list[Gpu],
    choice: Choice | None = None,
    *,
    launch: bool = False,
    deepspeed: bool = False,
    here: bool = False,
) -> Plan:
    """All of the plan, computed: `config` has its precision settled, and `choice` is what it comes to; None: what is
    estimated. `here`: `at` is this machine."""
    gpu_bytes = min((gpu.memory_bytes for gpu in devices), default=None)
    choice = choice or choose(config, seen.shape, at, gpu_bytes)
    at, settled = replace(at, strategy=choice.strategy), choice.settle(config)
    amount, train = seen.amount, config.train
    steps = train.steps(amount.rows)
    per_step = amount.tokens / amount.rows * min(train.global_batch_size, amount.rows)
    gpu = devices[0].name if devices else ""
    flops = step_flops(config, seen.shape, per_step, choice.gradient_checkpointing)
    known = times(config, seen.shape, seen.measured, flops, gpu, at.world_size)
    parts = trained(config, seen.shape)
    return {
        "run": config.run,
        "begun": seen.begun,
        "model": {
            "base": seen.source,
            "kind": seen.shape.kind,
            "parameters": seen.shape.parameters,
            "assumed": seen.assumed,
            "stored_bytes": seen.weight_bytes,
            "trained": parts.count,
            "adapters": len(parts.targets),
        },
        "machine": {
            "device": at.device,
            "gpu": gpu,
            "nodes": at.nodes,
            "ranks_per_node": at.ranks_per_node,
            "gpu_bytes": gpu_bytes,
            "precision": config.model.precision,
        },
        "data": {"rows": amount.rows, "tokens": amount.tokens, "measured": amount.measured, "how": amount.how},
        "steps": {
            "steps": steps,
            "steps_per_epoch": -(-amount.rows // train.global_batch_size),
            "done": seen.done,
            "tokens_per_step": round(per_step),
            "measured": amount.measured,
        },
        "memory": _memory(config, seen, at, choice, gpu_bytes),
        "chosen": {
            "strategy": choice.strategy,
            "offload": choice.offload,
            "token_budget": choice.token_budget,
            "gradient_checkpointing": choice.gradient_checkpointing,
            "why": choice.why,
            "warning": choice.warning,
        },
        **_times(config, seen, known, max(steps - seen.done, 0)),  # type: ignore[typeddict-item]
        "disk": dict(
            disk_bytes(
                config,
                seen.shape,
                0 if is_local(config.model.base) else seen.weight_bytes,
                seen.pulled_data_bytes,
                amount.tokens,
            )
        ),
        "launch": _launch(at, here) if launch else [],
        "deepspeed": _deepspeed(settled) if deepspeed else None,
    }


def _times(config: RunConfig, seen: Foreseen, known: Times, left: int) -> dict[str, object]:
    needed = None if known.step is None else grace_needed_seconds(known)
    given, auto = grace_seconds(config, os.environ), config.checkpoint.every == "auto"
    return {
        "checkpoint": {
            "bytes": checkpoint_bytes(config, seen.shape),
            "interval": config.checkpoint.every,
            "interval_seconds": interval_seconds(known) if auto else None,
            "blocked_seconds": known.blocked,
            "stored_seconds": known.written + known.upload,
            "measured": seen.measured.blocked_seconds is not None,
        },
        "grace": {
            "given_seconds": given,
            "needed_seconds": needed,
            "enough": None if needed is None else needed <= given,
        },
        "hours": {
            "step_seconds": known.step,
            "hours": None if known.step is None else known.step * left / 3600,
            "measured": seen.measured.step_seconds is not None,
            "assumed": list(known.assumed),
        },
    }


def _memory(config: RunConfig, seen: Foreseen, at: Topology, choice: Choice, gpu_bytes: int | None) -> list[Memory]:
    """Every strategy with the chosen micro-batches."""
    every = ("single",) if at.world_size == 1 else STRATEGIES
    found: list[Memory] = []
    for strategy in dict.fromkeys((*every, choice.strategy)):
        parts = estimate(
            config,
            seen.shape,
            strategy,
            choice.offload,
            at.world_size,
            choice.token_budget,
            choice.gradient_checkpointing,
            at.device,
        )
        fits = None if gpu_bytes is None else parts.total <= FILLED * gpu_bytes
        found.append(
            {
                "strategy": strategy,
                "parts": parts.by_name(),
                "total_bytes": parts.total,
                "host_bytes": parts.host,
                "fits": fits,
            }
        )
    return found


def _launch(at: Topology, here: bool) -> list[Launched]:
    """`here`: on this machine; of another it is not known how many cores it has, and which are near its GPUs."""
    found: list[Launched] = []
    for node in range(at.nodes):
        nodes_own = replace(at, node_rank=node)
        around = surroundings(nodes_own) if here and node == at.node_rank else Surroundings()
        for command in launch_plan(nodes_own, Path("RUN_DIR"), PORT, around=around):
            environment = dict(command.environment)
            if not around.environment:
                environment.pop("OMP_NUM_THREADS", None)
            argv = ["python", *command.argv[1:]]
            found.append({"node": node, "rank": command.rank, "argv": argv, "environment": environment})
    return found


def _deepspeed(settled: RunConfig) -> dict[str, Any] | None:
    if not settled.parallel.strategy.startswith("zero"):
        return None
    return deepspeed_config(settled, settled.model.precision)


def _settled(config: RunConfig, record: RunRecord | None, at: Topology, devices: list[Gpu]) -> RunConfig:
    """As `job.settled.settle`, for a machine that may not be at hand."""
    if record is not None:
        return as_settled(config, record)
    if config.model.precision != "auto":
        return config
    return config.replace(
        {"model.precision": "bf16" if at.device == "cuda" and all(gpu.bf16 for gpu in devices) else "fp32"}
    )
