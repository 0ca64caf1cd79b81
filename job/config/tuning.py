"""How it is trained: adapter, optimisation, and which evaluation counts as best."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Field

from job.config.marks import FREE
from job.config.section import Section
from job.config.values import AutoOrCount, AutoOrFlag, Choice, EpochOrSteps, Modules, Names, Positive, Warmup

_NOT_OF_THE_STEP = "its learning rate is no function of the step, so a resumed run would differ"


class LoraConfig(Section):
    """A LoRA adapter on a frozen base; any other field of peft's LoraConfig goes under `peft`."""

    r: Positive = Field(16, description="The rank.")
    alpha: Positive = Field(32, description="The scale: the update counts alpha / r times.")
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout before the adapter.")
    target_modules: Modules = Field("all-linear", description="all-linear, a list of module names, or a pattern.")
    modules_to_save: Names = Field((), description="Modules trained as a whole beside the adapter.")
    use_dora: bool = Field(False, description="Weight-decomposed LoRA.")
    use_rslora: bool = Field(False, description="Scale by alpha / sqrt(r).")


class TrainConfig(Section):
    """Optimisation. The global batch counts rows; how they fall onto devices is found by itself."""

    epochs: float = Field(3.0, gt=0, description="Passes over the data; may be a fraction.")
    max_steps: Positive | None = Field(None, description="End after so many optimizer steps, whatever epochs says.")
    global_batch_size: Positive = Field(64, description="Rows per optimizer step, over all devices.")
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        None, description="The peak learning rate; null: 2e-4 with LoRA, 2e-5 for full fine-tuning."
    )
    lr_scheduler_type: Annotated[
        Literal[
            "cosine",
            "linear",
            "constant",
            "constant_with_warmup",
            "cosine_with_restarts",
            "polynomial",
            "inverse_sqrt",
            "cosine_with_min_lr",
            "cosine_warmup_with_min_lr",
            "warmup_stable_decay",
        ],
        Choice(refused={"reduce_lr_on_plateau": _NOT_OF_THE_STEP, "greedy": _NOT_OF_THE_STEP}),
    ] = Field("cosine", description="The schedule, as transformers names it.")
    warmup_steps: Warmup = Field(0.03, description="Steps of warm-up; below 1 a share of all steps.")
    optim: Annotated[Literal["adamw", "adamw_8bit"], Choice()] = Field(
        "adamw", description="The optimizer; adamw_8bit needs the extra bnb."
    )
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay.")
    max_grad_norm: float = Field(1.0, ge=0, description="Clip the gradient's norm here; 0: never.")
    eval_steps: EpochOrSteps = Field("epoch", description="Evaluate each epoch, or every so many steps.")
    logging_steps: Annotated[Positive, FREE] = Field(10, description="Log every so many steps.")
    token_budget: Annotated[AutoOrCount, FREE] = Field(
        "auto",
        description="Tokens in one forward pass on one device; auto: what is estimated to fit, on the CPU 4 rows.",
    )
    gradient_checkpointing: Annotated[AutoOrFlag, FREE] = Field(
        "auto", description="Recompute activations to save memory; auto: only where memory demands it."
    )
    seed: int = Field(42, ge=0, lt=2**32, description="Data order, adapter initialisation and dropout follow from it.")

    def steps(self, rows: int) -> int:
        """Optimizer steps of a run with `rows` rows an epoch: as given, else epochs of ceil(rows / global batch)."""
        return self.max_steps or max(
            1, math.ceil(Fraction(str(self.epochs)) * math.ceil(rows / self.global_batch_size))
        )

    def warmup(self, steps: int) -> int:
        """Steps of warm-up in a run of `steps`: a share is rounded up."""
        return math.ceil(self.warmup_steps * steps) if self.warmup_steps < 1 else int(self.warmup_steps)


class BestConfig(Section):
    """Which evaluation is best, whether training stops for want of a better one, and what is published."""

    metric: str = Field(
        "eval_loss", description="The figure that is compared: eval_loss, eval_perplexity, or one that hooks compute."
    )
    mode: Annotated[Literal["min", "max"], Choice()] = Field("min", description="Whether less or more is better.")
    patience: Positive | None = Field(None, description="Stop after so many evaluations without a better one.")
    final: Annotated[Literal["last", "best"], Choice()] = Field("last", description="Which weights become the result.")

    def step_of(self, evaluations: Sequence[Mapping[str, Any]]) -> int | None:
        """The step of the best evaluation (the first of equals); None where none has the metric as a finite number."""
        scored = [
            (done[self.metric], done["step"]) for done in evaluations if math.isfinite(done.get(self.metric, math.nan))
        ]
        if not scored:
            return None
        sign = 1 if self.mode == "min" else -1
        return int(min(scored, key=lambda pair: (sign * pair[0], pair[1]))[1])
