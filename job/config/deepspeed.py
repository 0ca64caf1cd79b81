"""The DeepSpeed config that a run's own config stands for: nobody writes one by hand, and `plan` can show it."""

from typing import Any

from job.config.schema import RunConfig

NEVER = 2**31 - 1  # steps between two lines of DeepSpeed's own log
REDUCE_BUCKET, ALLGATHER_BUCKET, PREFETCH_BUCKET = 100_000_000, 100_000_000, 50_000_000  # elements


def deepspeed_config(config: RunConfig, computing: str) -> dict[str, Any]:
    """What accelerate's DeepSpeed plugin is given; `computing` is "bf16" or "fp32". The strategy is a ZeRO one.

    One micro-batch of our own making is one step to DeepSpeed: it neither cuts nor counts batches. The optimizer is
    torch's, also where its state lies in host memory, so that all strategies compute the same.
    """
    stage = int(config.parallel.strategy.removeprefix("zero"))
    zero: dict[str, Any] = {
        "stage": stage,
        "contiguous_gradients": True,
        "overlap_comm": stage == 3,
        "reduce_scatter": True,
        "reduce_bucket_size": REDUCE_BUCKET,
        "allgather_bucket_size": ALLGATHER_BUCKET,
    }
    if stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": PREFETCH_BUCKET,
            "stage3_param_persistence_threshold": "auto",  # ten times the hidden size; smaller ones are not sharded
            "stage3_gather_16bit_weights_on_model_save": False,
        }
    if config.parallel.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if config.parallel.offload == "all":
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.train.max_grad_norm,
        "bf16": {"enabled": computing == "bf16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": zero,
        "steps_per_print": NEVER,
    }
