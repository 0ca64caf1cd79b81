"""sft-job: supervised fine-tuning as a batch job that never loses a run."""

__version__ = "0.1.0"
