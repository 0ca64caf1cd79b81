"""The names that other trainers use, and what each is called here."""

# ours: theirs (TRL, transformers, peft, axolotl, LLaMA-Factory)
_CALLED = {
    "run": "output_dir",
    "model.base": "model_name_or_path model_name base_model pretrained_model_name_or_path model_id",
    "model.tokenizer": "tokenizer_name tokenizer_name_or_path tokenizer_path base_model_config tokenizer_config",
    "model.init": "adapter_name_or_path lora_model_dir peft_model_id",
    "model.precision": "bf16 fp16 torch_dtype dtype bf16_full_eval fp16_full_eval float16 bfloat16 "
    "mixed_precision pure_bf16 "
    "compute_dtype infer_dtype",
    "model.quantize": "load_in_4bit load_in_8bit quantization_bit quantization_method bnb_4bit_quant_type qlora",
    "model.chat_template": "chat_template_path chat_template_jinja template",
    "model.add_tokens": "tokens new_special_tokens added_tokens_overrides resize_vocab",
    "model.attn_implementation": "flash_attention flash_attn xformers_attention sdp_attention eager_attention",
    "data.train": "datasets dataset dataset_name dataset_path train_file dataset_dir train_dataset data_files",
    "data.eval": "val_set_size val_size eval_size validation_file eval_dataset test_datasets validation_split do_eval",
    "data.columns": "dataset_text_field field_instruction field_output",
    "data.loss": "completion_only_loss assistant_only_loss train_on_inputs train_on_prompt train_on_eos mask_history "
    "roles_to_train train_on_responses_only response_template",
    "data.append_eos": "add_eos_token eos_token_at_end",
    "data.max_length": "max_seq_length max_seq_len sequence_len cutoff_len model_max_length seq_len",
    "data.overlong": "truncation_mode excess_length_strategy truncation",
    "lora": "adapter finetuning_type use_peft use_lora peft_config lora_config",
    "lora.r": "lora_r lora_rank rank",
    "lora.alpha": "lora_alpha",
    "lora.dropout": "lora_dropout",
    "lora.target_modules": "lora_target lora_target_modules lora_target_linear",
    "lora.modules_to_save": "lora_modules_to_save additional_target",
    "lora.use_dora": "peft_use_dora",
    "lora.use_rslora": "peft_use_rslora",
    "train.epochs": "num_train_epochs num_epochs n_epochs",
    "train.learning_rate": "lr",
    "train.lr_scheduler_type": "lr_scheduler scheduler",
    "train.optim": "optimizer optim_name",
    "train.max_grad_norm": "gradient_clipping grad_clip",
    "train.seed": "data_seed",
    "train.eval_steps": "eval_strategy evaluation_strategy evals_per_epoch eval_delay eval_on_start",
    "train.logging_steps": "logging_strategy logging_first_step log_every_n_steps",
    "train.gradient_checkpointing": "activation_checkpointing disable_gradient_checkpointing",
    "best.metric": "metric_for_best_model",
    "best.mode": "greater_is_better",
    "best.final": "load_best_model_at_end",
    "best.patience": "early_stopping_patience early_stopping_steps",
    "checkpoint.every": "save_steps save_strategy saves_per_epoch",
    "checkpoint.keep": "save_total_limit",
    "parallel.strategy": "deepspeed fsdp fsdp_config fsdp_version parallelism_config zero_stage",
    "parallel.device": "use_cpu no_cuda ddp_backend device_map",
    "parallel.nproc_per_node": "nproc num_processes num_gpus local_rank",
    "track": "report_to use_wandb wandb_mode wandb_project use_tensorboard",
    "samples.max_new_tokens": "eval_max_new_tokens",
}
_HINTS = {
    "model.precision": " (bf16 or fp32)",
    "data.eval": " (a share like 0.2, or a URI)",
    "data.loss": " (assistant, last, completion or all)",
    "lora": " (null: full fine-tuning)",
    "train.eval_steps": " (epoch, or a count of steps)",
    "checkpoint.every": " (15m, or 500 steps)",
    "best.mode": " (min or max)",
    "best.final": " (last or best)",
}

# what sft-job settles by itself: the names, and how
_NEEDLESS = {
    "global_batch_size counts rows, the micro-batch is found by itself": "per_device_train_batch_size "
    "per_device_eval_batch_size gradient_accumulation_steps micro_batch_size auto_find_batch_size batch_size "
    "train_batch_size eval_batch_size",
    "rows are packed without padding, each document apart, within train.token_budget": "packing sample_packing "
    "eval_packing eval_sample_packing packing_strategy padding_free pad_to_sequence_len pad_to_multiple_of "
    "neat_packing "
    "multipack_real_batches group_by_length train_sampling_strategy length_column_name",
    "the order of rows follows from train.seed and the step": "shuffle_dataset dataloader_drop_last "
    "dataloader_num_workers "
    "dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor "
    "dataloader_multiprocessing_context "
    "dataloader_in_order accelerator_config ignore_data_skip",
    "a run goes on by itself when it is run again": "resume_from_checkpoint auto_resume_from_checkpoints "
    "overwrite_output_dir restore_callback_states_from_checkpoint enable_jit_checkpoint",
    "a checkpoint holds the trainable tensors and the optimizer's": "save_only_model save_on_each_node "
    "save_safetensors",
    "sft-job prepares the rows itself and stores them in the run folder": "dataset_kwargs dataset_num_proc "
    "dataset_prepared_path remove_unused_columns label_names preprocessing_num_workers overwrite_cache "
    "skip_prepare_dataset streaming",
    "a run always trains, and evaluates where data.eval is given": "do_train do_predict stage prediction_loss_only",
    "the result lies in the run folder; publish it from there": "push_to_hub hub_token hub_private_repo hub_model_id "
    "hub_strategy hub_always_push hub_revision",
    "progress and names follow from the run folder": "disable_tqdm run_name project logging_dir log_on_each_node "
    "wandb_name wandb_run_id wandb_entity trackio_space_id trackio_bucket_id trackio_static_space_id plot_loss",
    "the end-of-turn and padding tokens follow from the tokenizer and its chat template": "eos_token pad_token "
    "special_tokens "
    "pad_token_id eos_token_id",
    "sft-job loads the model; its options stand under model": "model_init_kwargs use_cache",
    "not part of YAML 1.2; write the fields out": "<<",
}

# theirs, where one of our fields and one more word are wanted
_SPECIAL = {
    "warmup_ratio": "here it is train.warmup_steps (below 1 it is a share of all steps)",
    "warmup_steps_ratio": "here it is train.warmup_steps (below 1 it is a share of all steps)",
}

_EXPLAINED = {
    **{name: f"here it is {ours}{_HINTS.get(ours, '')}" for ours, names in _CALLED.items() for name in names.split()},
    **{name: f"not needed here; {how}" for how, names in _NEEDLESS.items() for name in names.split()},
    **_SPECIAL,
}


def explained(name: str) -> str | None:
    """What another trainer's field is here, or None where the name is not known."""
    return _EXPLAINED.get(name)
