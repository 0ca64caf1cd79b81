"""The run's config: its schema, how it is read, and which part of it decides what is learned."""

from job.config.inputs import Columns, DataConfig, DataSource, ModelConfig
from job.config.load import load_config, load_text, with_sets
from job.config.place import BucketOptions, CheckpointConfig, ParallelConfig, SamplesConfig
from job.config.schema import RunConfig
from job.config.trajectory import json_schema, trajectory, trajectory_diff, trajectory_digest
from job.config.tuning import BestConfig, LoraConfig, TrainConfig
from job.config.values import Interval

__all__ = [
    "BestConfig",
    "BucketOptions",
    "CheckpointConfig",
    "Columns",
    "DataConfig",
    "DataSource",
    "Interval",
    "LoraConfig",
    "ModelConfig",
    "ParallelConfig",
    "RunConfig",
    "SamplesConfig",
    "TrainConfig",
    "json_schema",
    "load_config",
    "load_text",
    "trajectory",
    "trajectory_diff",
    "trajectory_digest",
    "with_sets",
]
