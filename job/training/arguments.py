"""What TRL's trainer is told: every argument whose default could change the run, and the engine's config."""

import torch
from trl import SFTConfig

from job.config import RunConfig
from job.config.deepspeed import deepspeed_config
from job.rundir import RunDir
from job.training.batches import Schedule

OPTIMIZERS = {"adamw": "adamw_torch_fused", "adamw_8bit": "adamw_8bit"}


def trainer_arguments(
    run: RunDir, config: RunConfig, schedule: Schedule, device: torch.device, dtype: torch.dtype
) -> SFTConfig:
    """What we do ourselves is switched off."""
    train, engine = config.train, None
    checkpointing = train.gradient_checkpointing
    if config.parallel.strategy.startswith("zero"):
        engine = deepspeed_config(config, "bf16" if dtype == torch.bfloat16 else "fp32")
        if device.type == "cpu":
            import deepspeed

            # It would compile a shared-memory library first, for minutes; gloo does as well.
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return SFTConfig(
        output_dir=str(run.path / "trainer"),
        max_steps=schedule.steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        learning_rate=config.learning_rate,
        lr_scheduler_type=train.lr_scheduler_type,
        warmup_steps=train.warmup(schedule.steps),
        optim=OPTIMIZERS[train.optim],
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        seed=train.seed,
        use_cpu=device.type == "cpu",
        bf16=dtype == torch.bfloat16,
        fp16=False,
        tf32=None,
        gradient_checkpointing=device.type == "cuda" if checkpointing == "auto" else bool(checkpointing),
        gradient_checkpointing_kwargs={"use_reentrant": False},
        max_length=config.data.max_length,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        average_tokens_across_devices=False,
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        ignore_data_skip=True,
        deepspeed=engine,
        **config.trl,
    )
