"""What a config may say, and what it is told otherwise."""

import json
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from job.config import RunConfig
from job.config.checks import disagreements
from job.errors import ConfigError

Load = Callable[..., RunConfig]
Refusal = Callable[..., list[str]]
MINIMAL = {"run": "s3://runs/chat", "model": {"base": "b"}, "data": {"train": ["d"]}, "lora": {}}


def config(**values: object) -> RunConfig:
    return RunConfig.from_dict(MINIMAL).replace({path.replace("__", "."): value for path, value in values.items()})


@pytest.mark.parametrize(
    "setting",
    [
        "track=[mlflow]",
        "export=[merged]",
    ],
)
def test_what_comes_later_is_refused_in_one_line(refusal: Refusal, setting: str) -> None:
    (line,) = refusal(YAML, setting)
    assert line.startswith(f"--set {setting.partition('=')[0]}:")
    assert "not supported yet" in line


YAML = "run: s3://runs/chat\nmodel: {base: b}\ndata: {train: [d]}\nlora: {}\n"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.add_tokens=[a, a]", "must name each token once"),
        ("best.metric=accuracy", "accuracy is not computed; write eval_loss or eval_perplexity, or give hooks"),
        ("data.format=sharegpt", "sharegpt is refused: it is a spelling of chat, known by its columns; write auto"),
        ("data.train=[{uri: a, format: alpacas}]", "'alpacas' is unknown; write auto, chat"),
        ("data.train=[{uri: a, weight: 0}]", "must be above 0"),
        ("data.train=[{uri: a, weight: 1001}]", "1000"),
        ("data.train=[{uri: a, split: ''}]", "split"),
        ("model.precision=fp16", "fp16 is refused: it overflows and needs loss scaling; write auto, bf16 or fp32"),
        ("train.token_budget=1000", "1000 is below data.max_length, 1024: raise it"),
        ("train.global_batch_size=0", "must be above 0, not 0"),
        ("train.learning_rate=0", "must be above 0"),
        ("train.learning_rate=.nan", "must be a finite number"),
        ("train.warmup_steps=1.5", "must be a share below 1 or a whole number of steps, not 1.5"),
        ("train.optim=adamw_torch", "'adamw_torch' is unknown; write adamw or adamw_8bit"),
        ("train.lr_scheduler_type=cosin", "did you mean cosine?"),
        ("train.lr_scheduler_type=reduce_lr_on_plateau", "its learning rate is no function of the step"),
        ("train.lr_scheduler_type=warmup_stable_decay", "needs trl.lr_scheduler_kwargs, like {num_decay_steps: ...}"),
        ("train.eval_steps=0", "must be epoch or a whole number above 0"),
        ("train.gradient_checkpointing=on", "must be auto, true or false, not 'on'"),
        ("data.eval=1", "must be a share between 0 and 1 or a URI, not 1"),
        ("data.loss=assistants", "did you mean assistant?"),
        ("data.train=[]", "names no data"),
        ("data.columns={prompt: '{}', completion: b}", "names no column"),
        ("data.columns={prompt: '{a', completion: b}", "is not a template"),
        ("lora.dropout=1", "must be below 1"),
        ("lora.target_modules=[1]", "must be all-linear, a pattern, or a list of module names"),
        ("best.mode=least", "write min or max"),
        ("best.final=best", "needs evaluations; give data.eval"),
        ("best.patience=3", "needs evaluations; give data.eval"),
        ("checkpoint.every=500", "500 is not an interval; write auto, a duration like 15m, or a count like 500 steps"),
        ("checkpoint.every=0 steps", "is not an interval"),
        ("grace=1:30", "'1:30' is not a duration; write it with its unit"),
        ("grace=1ms", "'1ms' is not a duration; write it with its unit (d, h, m or s)"),
        ("grace=0s", "'0s' is no time at all; write 1s or more"),
        ("max_time=0s", "write 1s or more"),
        ("samples.top_p=0", "must be above 0"),
        ("samples.every=epoch", "must be eval or a whole number above 0"),
        ("track=[tensorbord]", "did you mean tensorboard?"),
        ("track=[wandb, wandb]", "names something twice"),
        ("export=[]", "names nothing to export"),
        ("parallel.device=gpu", "write auto, cuda or cpu"),
        ("parallel={strategy: single, nproc_per_node: 2}", "single is one rank"),
        ("run=gs://a/b", "gs:// is unknown; write s3:// or a path"),
        ("run=s3:///b", "has no bucket"),
        ("run=ht!tp:a", "is neither a path nor a known URI; write s3://, or ./ht!tp:a for such a folder"),
        ("data.train=[hf:org/name]", "write s3:// or hf://"),
        ("model.init=", "--set model.init: has no value; write --set model.init=null to unset it"),
        ("lora=", "write --set lora=null to unset it"),
        ("storage.b.endpoint=host:9000", "is not a URL"),
        ("storage.b.sse_kms_key_id=k", "needs sse: aws:kms"),
        ("storage={'s3://b/c': {}}", "is no bucket name"),
        ("samples=null", "is empty; leave it out"),
    ],
)
def test_a_wrong_value_is_told_what_to_do(refusal: Refusal, setting: str, said: str) -> None:
    (line,) = refusal(YAML, setting)
    assert said in line


def test_8_bit_adam_is_refused_where_its_state_would_be_sharded() -> None:
    given = config(train__optim="adamw_8bit")
    assert list(disagreements(given)) == []
    sharded = given.model_copy(update={"parallel": given.parallel.model_copy(update={"strategy": "zero2"})})
    (mistake,) = disagreements(sharded)
    assert mistake.dotted == "train.optim"
    assert mistake.text == "adamw_8bit works with single and ddp only, not zero2; write adamw"


@pytest.mark.parametrize(
    ("run", "source"),
    [
        ("s3://b/data", "s3://b/data"),
        ("s3://b/data/", "s3://b/data"),
        ("s3://b/data/runs/1", "s3://b/data"),
        ("s3://b/chat-1", "s3://b/chat-*"),
        ("s3://b/data/x/runs", "s3://b/data/**"),
        ("/mnt/data/run", "/mnt/other/../data"),
    ],
)
def test_a_run_is_never_inside_one_of_its_sources(refusal: Refusal, run: str, source: str) -> None:
    for field in ("model.base", "model.tokenizer", "model.init", "data.eval", "data.train"):
        (line,) = refusal(YAML, f"run={run}", f"{field}={source}")
        assert line.startswith("--set run: ") and f"lies inside {field}" in line


@pytest.mark.parametrize(
    ("run", "source"),
    [
        ("s3://b/runs/1", "s3://b/*.jsonl"),
        ("s3://b/data-2", "s3://b/data"),
        ("s3://b/data", "hf://b/data"),
        ("bucket/data", "s3://bucket/data"),
    ],
)
def test_a_run_beside_its_sources_is_fine(load: Load, run: str, source: str) -> None:
    assert load(YAML, f"run={run}", f"data.train={source}").run == run


def test_the_learning_rate_follows_from_lora_unless_it_is_given() -> None:
    assert config().learning_rate == 2e-4
    assert config(lora=None).learning_rate == 2e-5
    assert config(lora=None, train__learning_rate=1e-3).learning_rate == 1e-3
    assert config().resolved().train.learning_rate == 2e-4


def test_cadences_have_typed_accessors() -> None:
    assert config(checkpoint__every="1h30m").checkpoint.interval().seconds == 5400.0
    assert config(checkpoint__every="90s").checkpoint.interval().seconds == 90.0
    assert config(checkpoint__every="1 step").checkpoint.interval().steps == 1
    assert config(checkpoint__every="500 steps").checkpoint.interval().seconds is None
    assert config(grace="2m").grace_seconds == 120.0
    assert config(max_time="1d").max_time_seconds == 86400.0
    assert config(train__token_budget=2048).token_budget == 2048


def test_warmup_is_a_share_of_all_steps_or_a_count() -> None:
    assert [config(train__warmup_steps=steps).train.warmup(101) for steps in (0, 0.03, 0.5, 1, 20)] == [0, 4, 51, 1, 20]


def test_the_best_evaluation_is_the_first_of_equals() -> None:
    evaluations = [
        {"step": 2, "eval_loss": 2.0},
        {"step": 4, "eval_loss": 1.0},
        {"step": 6, "eval_loss": 1.0},
        {"step": 8},
    ]
    assert config().best.step_of(evaluations) == 4
    assert config(best__mode="max").best.step_of(evaluations) == 2
    assert config().best.step_of([]) is None
    diverged = [{"step": 1, "eval_loss": float("nan")}, {"step": 2, "eval_loss": 1.0}]
    assert config().best.step_of(diverged) == 2


def test_an_attempt_that_would_stop_as_soon_as_it_began_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_time: 20s is over before a stop"):
        config(max_time="20s", grace="30s")


def test_a_config_survives_its_json(load: Load) -> None:
    rich = load(
        YAML,
        "data.train=[s3://a/b, {uri: /c, columns: {prompt: '{text} ', completion: target}, loss: all}]",
        "lora.target_modules=[q_proj, v_proj]",
        "trl={lr_scheduler_kwargs: {num_cycles: 2}}",
        "storage={b: {sse: AES256}}",
        "samples.prompts=[微调测试]",
        "track=[tensorboard, wandb]",
        "checkpoint.every=90s",
    )
    again = RunConfig.from_dict(json.loads(json.dumps(rich.to_dict())))
    assert again == rich
    assert again.to_dict() == rich.to_dict()


def test_a_stored_config_is_not_expanded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", "x")
    assert config(model__base="/a/${WHERE}").model.base == "/a/${WHERE}"


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        config().train.epochs = 5.0


def test_no_mistake_gets_past_the_construction() -> None:
    with pytest.raises(ValidationError, match=r"train.token_budget: 1 is below data.max_length"):
        RunConfig.model_validate({**MINIMAL, "train": {"token_budget": 1}})
