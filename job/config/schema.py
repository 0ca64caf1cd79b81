"""RunConfig: everything a run is told, in one frozen value; no mistake gets past its construction."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, ValidationInfo, model_validator

from job.config.inputs import DataConfig, ModelConfig
from job.config.marks import DECIDES, FREE
from job.config.place import BucketOptions, CheckpointConfig, ParallelConfig, SamplesConfig
from job.config.section import Section
from job.config.tuning import BestConfig, LoraConfig, TrainConfig
from job.config.values import Choice, Expanded, Grace, MaxTime, RunPlace, duration_seconds

AUTO_GRACE_SECONDS = 30.0
AUTO_BUDGET_ROWS = 4  # the token budget, in rows of the greatest length
LORA_LEARNING_RATE, FULL_LEARNING_RATE = 2e-4, 2e-5

Track = Annotated[Literal["tensorboard", "wandb"], Choice(later=("mlflow",))]
Export = Annotated[Literal["adapter"], Choice(later=("merged",))]


class RunConfig(Section):
    """One run. The same config and the same run folder give the same model on any machine."""

    run: Annotated[RunPlace, FREE] = Field(
        description="The run folder: s3://bucket/prefix, or a path on a shared filesystem."
    )
    model: Annotated[ModelConfig, DECIDES] = Field(description="The base model.")
    data: Annotated[DataConfig, DECIDES] = Field(description="The rows to learn from.")
    lora: Annotated[LoraConfig | None, DECIDES] = Field(description="The adapter; null: full fine-tuning.")
    train: Annotated[TrainConfig, DECIDES] = Field(default_factory=TrainConfig, description="Optimisation.")
    best: Annotated[BestConfig, DECIDES] = Field(default_factory=BestConfig, description="Which evaluation is best.")
    hooks: Annotated[Expanded | None, DECIDES] = Field(
        None,
        description="A Python file with row(), callbacks(), compute_metrics(); runs only where SFT_JOB_ALLOW_CODE=1.",
    )
    storage: Annotated[dict[str, BucketOptions], FREE] = Field(
        default_factory=dict, description="Options by bucket name."
    )
    trl: Annotated[dict[str, JsonValue], DECIDES] = Field(
        default_factory=dict, description="Other fields of TRL's SFTConfig; what sft-job owns is refused."
    )
    peft: Annotated[dict[str, JsonValue], DECIDES] = Field(
        default_factory=dict, description="Other fields of peft's LoraConfig; what sft-job owns is refused."
    )
    parallel: Annotated[ParallelConfig, FREE] = Field(default_factory=ParallelConfig, description="Devices.")
    checkpoint: Annotated[CheckpointConfig, FREE] = Field(default_factory=CheckpointConfig, description="Checkpoints.")
    grace: Annotated[Grace, FREE] = Field(
        "auto", description="Between a stop request and the kill, like 120s; auto: SFT_JOB_GRACE, else 30s."
    )
    max_time: Annotated[MaxTime, FREE] = Field(None, description="Stop, to be run again, after this time; per attempt.")
    hang_after: Annotated[Grace, FREE] = Field(
        "auto", description="No step for so long, and the ranks are restarted; auto: 10 usual steps, at least 5m."
    )
    samples: Annotated[SamplesConfig, FREE] = Field(
        default_factory=SamplesConfig, description="Texts generated meanwhile."
    )
    track: Annotated[tuple[Track, ...], FREE] = Field(
        ("tensorboard",), strict=False, description="Where figures are shown."
    )
    export: Annotated[tuple[Export, ...], FREE] = Field(
        ("adapter",), strict=False, description="What the result holds."
    )

    @model_validator(mode="after")
    def _agrees(self, info: ValidationInfo) -> Self:
        from job.config.checks import disagreements

        if (info.context or {}).get("fields_only"):
            return self
        if found := [f"{mistake.dotted}: {mistake.text}" for mistake in disagreements(self)]:
            raise ValueError("\n".join(found))
        return self

    @property
    def learning_rate(self) -> float:
        """The peak learning rate: as given, else by whether an adapter is trained."""
        if self.train.learning_rate is not None:
            return self.train.learning_rate
        return FULL_LEARNING_RATE if self.lora is None else LORA_LEARNING_RATE

    @property
    def token_budget(self) -> int:
        """Tokens in one forward pass on one device."""
        budget = self.train.token_budget
        return AUTO_BUDGET_ROWS * self.data.max_length if budget == "auto" else budget

    @property
    def grace_seconds(self) -> float:
        """Seconds between a stop request and the kill."""
        return AUTO_GRACE_SECONDS if self.grace == "auto" else duration_seconds(self.grace)

    @property
    def max_time_seconds(self) -> float | None:
        """Seconds after which an attempt stops by itself, or None."""
        return None if self.max_time is None else duration_seconds(self.max_time)

    @property
    def hang_after_seconds(self) -> float | None:
        """Seconds without a sign of life from the ranks, or None: a multiple of what is usual."""
        return None if self.hang_after == "auto" else duration_seconds(self.hang_after)

    def replace(self, values: Mapping[str, object]) -> "RunConfig":
        """A config with other values at these dotted paths. Raises ConfigError as `from_dict` does."""
        tree = self.to_dict()
        for path, value in values.items():
            *above, name = path.split(".")
            inner = tree
            for part in above:
                inner = inner[part]
            inner[name] = value
        return RunConfig.from_dict(tree)

    def resolved(self) -> "RunConfig":
        """The config with every trajectory-deciding default that follows from other fields written out."""
        return self.replace({"train.learning_rate": self.learning_rate})

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON holds them; `from_dict` gives the same config back."""
        return self.model_dump(mode="json")

    @staticmethod
    def from_dict(tree: Mapping[str, Any]) -> "RunConfig":
        """The config that `to_dict` wrote; variables are not expanded again. Raises ConfigError with every mistake."""
        from job.config.build import build

        return build(dict(tree), lambda path: "config", [])
