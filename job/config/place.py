"""Where it runs and what comes out: devices, checkpoints, samples, buckets."""

from typing import Annotated, Literal

from pydantic import Field

from job.config.section import Section
from job.config.values import (
    AutoOrCount,
    Choice,
    Duration,
    Endpoint,
    EvalOrSteps,
    Every,
    Interval,
    Names,
    Positive,
    duration_seconds,
    interval,
)


class ParallelConfig(Section):
    """Devices and how the work is spread over them; the result does not depend on it."""

    device: Annotated[Literal["auto", "cuda", "cpu"], Choice()] = Field(
        "auto", description="cuda: an error where it is missing; auto: cuda where visible or granted by the scheduler."
    )
    strategy: Annotated[Literal["auto", "single", "ddp", "zero1", "zero2", "zero3"], Choice()] = Field(
        "auto", description="auto: the first of single or ddp, zero1, zero2, zero3 that fits into memory."
    )
    nproc_per_node: AutoOrCount = Field("auto", description="Ranks on each node; auto: one per GPU, on the CPU one.")
    offload: Annotated[Literal["none", "optimizer", "all"], Choice()] = Field(
        "none", description="Kept in host memory under ZeRO: the optimizer's state; all: with zero3 the parameters too."
    )
    wait_for_nodes: Duration = Field("10m", description="How long nodes wait for each other before they leave with 75.")

    @property
    def wait_seconds(self) -> float:
        """How long nodes wait for each other."""
        return duration_seconds(self.wait_for_nodes)


class CheckpointConfig(Section):
    """When the state of training is committed to the run folder, and how many commits are kept."""

    every: Every = Field("auto", description="auto, a duration like 15m, or a count like 500 steps.")
    keep: Positive = Field(3, description="How many of the newest commits are kept, beside the best.")

    def interval(self) -> Interval | None:
        """Steps or seconds between two checkpoints; None: as what is measured says."""
        return None if self.every == "auto" else interval(self.every)


class SamplesConfig(Section):
    """Texts generated while it trains and at its end."""

    prompts: Names = Field((), description="What the model is asked.")
    every: EvalOrSteps = Field("eval", description="At each evaluation, or every so many steps.")
    max_new_tokens: Positive = Field(64, description="The longest answer, in tokens.")
    temperature: float = Field(0.0, ge=0, description="0: greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="Draw from the likeliest tokens that make up this share.")


class BucketOptions(Section):
    """How one bucket is reached; credentials come from the standard AWS chain, never from here."""

    profile: str | None = Field(None, description="The AWS profile for this bucket.")
    endpoint: Endpoint | None = Field(None, description="The S3 endpoint of this bucket.")
    sse: Annotated[Literal["AES256", "aws:kms", "aws:kms:dsse"], Choice()] | None = Field(
        None, description="Server-side encryption of what is written."
    )
    sse_kms_key_id: str | None = Field(None, description="The KMS key, where sse is aws:kms.")
