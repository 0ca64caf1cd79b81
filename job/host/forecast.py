"""What a run will cost beside memory, as pure arithmetic: hours, checkpoints, the grace period, room on the disk.

Every figure says whether it was measured by the run so far or is assumed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from job.config import RunConfig
from job.host.budget import MARGIN, RESERVE_SECONDS, Durations
from job.host.estimate import checkpoint_bytes
from job.host.shape import HEAD, Shape
from job.storage.interval import PRIOR_SECONDS, checkpoint_interval

MFU = 0.35  # of the peak: what well-laid-out fine-tuning reaches on current GPUs; long rows less, large layers more
COPY_BYTES_PER_SECOND = 10e9  # from a GPU into pinned host memory
WRITE_BYTES_PER_SECOND = 1e9  # to a local disk
UPLOAD_BYTES_PER_SECOND = 200e6  # to object storage
ROW_BYTES = 8  # a token of a prepared row: its id and its label
SNAPSHOTS = 2  # on the disk at a time: one that is uploaded, one that is written

PEAK_TFLOPS = {  # dense bf16 (fp16 where it has none), as their makers' data sheets say
    "P100": 21.2, "V100": 125, "T4": 65, "A10": 125, "A10G": 70, "A16": 18, "A30": 165, "A40": 150, "A100": 312,
    "A6000": 155, "L4": 121, "L40": 181, "L40S": 362, "RTX3090": 71, "RTX4090": 165, "RTX5090": 210, "H20": 148,
    "H100": 989, "H200": 989, "GH200": 989, "B200": 2250, "GB200": 2500, "B300": 2250, "MI210": 181, "MI250X": 191,
    "MI300A": 981, "MI300X": 1307, "MI325X": 1307, "MI355X": 2500,
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What attempts before found out, on the machine they had: medians in seconds; None where nothing was."""

    step_seconds: float | None = None
    blocked_seconds: float | None = None
    written_seconds: float | None = None
    attempt: int = 0


@dataclass(frozen=True)
class Times:
    """Seconds each; None where nothing is known. `assumed` names what was not measured."""

    step: float | None
    blocked: float
    written: float
    upload: float
    assumed: tuple[str, ...]

    @property
    def durations(self) -> Durations:
        return Durations(self.step, self.blocked + self.written, self.upload)


def step_flops(config: RunConfig, shape: Shape, tokens: float, recompute: bool) -> float:
    """Of one step: 6 N a token (Kaplan et al. 2020), N the parameters that are multiplied with.

    A frozen base needs no gradients of its weights: 4 N. Recomputing runs the forward pass once more: 2 N.
    """
    multiplied = sum(tensor.count for tensor in shape.matrices)
    multiplied += sum(t.count for t in shape.embeddings if HEAD.search(t.module) or shape.tied)
    passes = (6 if config.lora is None else 4) + (2 if recompute else 0)
    return passes * multiplied * tokens


def peak_flops(gpu: str) -> float | None:
    """A second, of a GPU by its name (`H100 80GB`, `NVIDIA H100 80GB HBM3`); None for one that is not known."""
    words = gpu.upper().replace("-", " ").replace("RTX ", "RTX").split()
    found = max((name for name in PEAK_TFLOPS if name in words), key=len, default=None)
    return None if found is None else PEAK_TFLOPS[found] * 1e12


def times(config: RunConfig, shape: Shape, measured: Measured, flops: float, gpu: str, ranks: int) -> Times:
    """`flops`: of a step of the whole job."""
    assumed, size = [], checkpoint_bytes(config, shape)
    step, peak = measured.step_seconds, peak_flops(gpu)
    if step is None and peak is not None:
        step = flops / (ranks * peak * MFU)
        assumed.append(f"steps at {MFU:.0%} of {peak / 1e12:,.0f} TFLOPS a GPU")
    blocked = measured.blocked_seconds
    if blocked is None:
        blocked = size / COPY_BYTES_PER_SECOND
        assumed.append(f"copies at {COPY_BYTES_PER_SECOND / 1e9:.0f} GB/s")
    written = measured.written_seconds
    if written is None:
        written = size / WRITE_BYTES_PER_SECOND
        assumed.append(f"writing at {WRITE_BYTES_PER_SECOND / 1e9:.0f} GB/s")
    assumed.append(f"uploads at {UPLOAD_BYTES_PER_SECOND / 1e6:.0f} MB/s")
    return Times(step, blocked, written, size / UPLOAD_BYTES_PER_SECOND, tuple(assumed))


def interval_seconds(known: Times) -> float:
    """Where `checkpoint.every` is auto, before anything is known of interruptions."""
    return checkpoint_interval(known.blocked, known.written + known.upload, PRIOR_SECONDS)


def grace_needed_seconds(known: Times) -> float:
    """From the request to the exit with a new checkpoint, by the rule of `job.host.budget`: the step under way, the
    snapshot, the upload, each a quarter longer than usual, and what is kept for the end record."""
    spent = (known.step or 0.0) + known.blocked + known.written + known.upload
    return RESERVE_SECONDS + MARGIN * spent


def disk_bytes(config: RunConfig, shape: Shape, base: int, data: int, tokens: int) -> Mapping[str, int]:
    """On the node that leads. `base` and `data` are 0 where they are read in place."""
    size = checkpoint_bytes(config, shape)
    return {"base": base, "data": data, "prepared": ROW_BYTES * tokens, "snapshots": SNAPSHOTS * size}
