"""From a file to a config, or to every mistake at once."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from job.config import RunConfig, load_config, with_sets
from job.errors import ConfigError, ExitCode

Load = Callable[..., RunConfig]
Refusal = Callable[..., list[str]]

MINIMAL = """\
run: s3://runs/chat
model: {base: hf://org/base@main}
data: {train: [s3://data/chat-*.jsonl]}
lora: {}
"""


def test_four_fields_are_enough_and_the_rest_has_the_documented_defaults(load: Load) -> None:
    config = load()
    assert (config.lora and config.lora.r, config.train.epochs, config.train.global_batch_size) == (16, 3.0, 64)
    assert (config.data.max_length, config.token_budget, config.learning_rate) == (1024, 4096, 2e-4)
    assert (config.grace_seconds, config.max_time_seconds) == (30.0, None)
    assert config.checkpoint.interval() is None


def test_the_four_required_fields_are_all_asked_for_at_once(refusal: Refusal) -> None:
    lines = refusal("train: {epochs: 1}\n")
    assert lines[0] == "4 mistakes in the config:"
    assert [line.split(": ")[1] for line in lines[1:]] == ["run", "model", "data", "lora"]
    assert all("is required; write" in line for line in lines[1:])


def test_all_mistakes_are_told_at_once_each_with_its_line(refusal: Refusal) -> None:
    lines = refusal(
        "run: s3://runs/chat\n"
        "model:\n"
        "  base: hf://org/base\n"
        "  precision: fp16\n"
        "data:\n"
        "  train: [s3://data/a.jsonl]\n"
        "  max_length: 2048\n"
        "train:\n"
        "  lerning_rate: 1\n"
        "  token_budget: 100\n"
        "  epochs: many\n"
        "  num_train_epochs: 3\n"
    )
    assert lines[0] == "6 mistakes in the config:"
    assert [line.split(": ")[:2] for line in lines[1:]] == [
        ["run.yaml:1", "lora"],
        ["run.yaml:4", "model.precision"],
        ["run.yaml:9", "train.lerning_rate"],
        ["run.yaml:10", "train.token_budget"],
        ["run.yaml:11", "train.epochs"],
        ["run.yaml:12", "train.num_train_epochs"],
    ]


def test_one_mistake_is_one_line(refusal: Refusal) -> None:
    assert refusal(MINIMAL + "train:\n  lerning_rate: 1\n") == [
        "run.yaml:6: train.lerning_rate: unknown field; did you mean learning_rate?"
    ]


def test_a_comparison_is_left_out_where_one_of_its_values_is_wrong(refusal: Refusal) -> None:
    lines = refusal(MINIMAL.replace("data: {", "data: {max_length: lots, ") + "train: {token_budget: 10}\n")
    assert lines == ["run.yaml:3: data.max_length: must be a whole number, not 'lots'"]


def test_a_config_error_leaves_with_the_config_code() -> None:
    with pytest.raises(ConfigError) as error:
        RunConfig.from_dict({})
    assert error.value.exit_code == ExitCode.CONFIG


def test_a_value_is_never_converted_silently(refusal: Refusal) -> None:
    lines = refusal(
        MINIMAL + 'train: {max_steps: "5", epochs: true, seed: 1.5}\nsamples: {prompts: [3]}\nmax_time: 90\n'
    )
    assert len(lines) == 6
    assert any("train.max_steps: must be a whole number, not '5'" in line for line in lines)
    assert any("samples.prompts.0: must be text, not 3; put it in quotes" in line for line in lines)
    assert any("max_time: 90 is not a duration" in line for line in lines)


def test_a_list_element_is_named_with_its_own_line(refusal: Refusal) -> None:
    text = MINIMAL.replace(
        "data: {train: [s3://data/chat-*.jsonl]}", "data:\n  train:\n  - s3://a/b\n  - uri: gs://a/b\n  - ur: x"
    )
    lines = refusal(text)
    assert [line.split(": ")[:2] for line in lines[1:]] == [
        ["run.yaml:6", "data.train.1.uri"],
        ["run.yaml:7", "data.train.2.uri"],
        ["run.yaml:7", "data.train.2.ur"],
    ]


def test_variables_expand_in_paths_and_uris(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", "bucket")
    config = load(
        "run: s3://${WHERE}/runs\n"
        "model: {base: '/${WHERE}/base', tokenizer: 'hf://${WHERE}/t', chat_template: '${WHERE}/chat.jinja'}\n"
        "data: {train: ['s3://${WHERE}/a', {uri: '/${WHERE}/b'}], eval: 's3://${WHERE}/c'}\n"
        "lora: null\n"
        "storage: {b: {endpoint: 'https://${WHERE}:9000'}}\n"
        "samples: {prompts: ['${WHERE}']}\n"
    )
    assert (config.run, config.model.base, config.model.tokenizer) == (
        "s3://bucket/runs",
        "/bucket/base",
        "hf://bucket/t",
    )
    assert config.model.chat_template == "bucket/chat.jinja"
    assert [source.uri for source in config.data.train] == ["s3://bucket/a", "/bucket/b"]
    assert config.data.eval == "s3://bucket/c"
    assert config.storage["b"].endpoint == "https://bucket:9000"
    assert config.samples.prompts == ("${WHERE}",)


def test_an_unset_variable_is_an_error_that_names_it(refusal: Refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    monkeypatch.setenv("EMPTY", "")
    lines = refusal(
        MINIMAL.replace("s3://runs/chat", "s3://${NOWHERE}/chat").replace("hf://org/base@main", "'/${EMPTY}/x'")
    )
    assert "run.yaml:1: run: the variable NOWHERE is not set; export NOWHERE" in lines
    assert "run.yaml:2: model.base: the variable EMPTY is empty; export EMPTY" in lines


def test_set_changes_any_field(load: Load) -> None:
    config = load(
        MINIMAL,
        "train.learning_rate=1e-4",
        "lora=null",
        "data.train=[s3://x/1, {uri: s3://x/2, loss: all}]",
        "data.eval=0.2",
        "data.columns={prompt: text, completion: target}",
        'storage."my.bucket".endpoint=http://localhost:1',
        'samples.prompts=["a=b", "no"]',
        "trl.adam_beta2=0.95",
        "checkpoint.every=500 steps",
    )
    assert (config.train.learning_rate, config.lora, config.data.eval) == (1e-4, None, 0.2)
    assert [(source.uri, source.loss) for source in config.data.train] == [("s3://x/1", None), ("s3://x/2", "all")]
    assert config.data.columns and config.data.columns.completion == "target"
    assert config.storage["my.bucket"].endpoint == "http://localhost:1"
    assert config.samples.prompts == ("a=b", "no")
    assert config.trl == {"adam_beta2": 0.95}
    assert config.checkpoint.interval().steps == 500


def test_set_reaches_into_a_list_and_below_null(load: Load) -> None:
    text = MINIMAL.replace("[s3://data/chat-*.jsonl]", "[{uri: s3://a/b}]").replace("lora: {}", "lora: null")
    config = load(text, "data.train.0.loss=all", "lora.r=4")
    assert config.data.train[0].loss == "all"
    assert config.lora and config.lora.r == 4


def test_the_later_set_wins(load: Load) -> None:
    assert load(MINIMAL, "train.seed=1", "train.seed=2").train.seed == 2


def test_a_mistake_in_a_set_is_named_by_it(refusal: Refusal) -> None:
    lines = refusal(
        MINIMAL,
        "train.lerning_rate=1",
        "train.epochs=-1",
        "nothing",
        "run.x=1",
        "lora={r: a}",
        "best.mode=[",
        "modle.base=x",
    )
    assert "--set modle.base: modle: unknown field; did you mean model?" in lines
    assert "--set train.lerning_rate: unknown field; did you mean learning_rate?" in lines
    assert "--set train.epochs: must be above 0, not -1" in lines
    assert "--set nothing: has no value; write --set path=value" in lines
    assert "--set run.x: run has nothing named x; set run as a whole" in lines
    assert "--set lora: lora.r: must be a whole number, not 'a'" in lines
    assert any(line.startswith("--set best.mode: is not YAML: ") for line in lines)


def test_a_set_repairs_what_is_wrong_in_the_file(load: Load) -> None:
    assert load(MINIMAL + "train: {epochs: many}\n", "train.epochs=2").train.epochs == 2.0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "run.yaml: there is no such file"),
        (b"", "run.yaml: is empty"),
        (b"# only a comment\n", "run.yaml: is empty"),
        (b"a: [1,\nb: }\n", "run.yaml:2: is not YAML: "),
        (b"- a\n- b\n", "run.yaml:1: is no mapping"),
        (b"a: 1\n---\nb: 2\n", "run.yaml:2: is not YAML: "),
        (b"\xff\xfe\x00", "run.yaml: is not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_config_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("run.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as error:
        load_config(Path("run.yaml"))
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_a_config_read_before_takes_sets_too(load: Load) -> None:
    config = load(MINIMAL)
    assert with_sets(config, []) == config
    assert with_sets(config, ["train.seed=7"]).train.seed == 7
    with pytest.raises(ConfigError, match=r"^--set train\.sed: unknown field; did you mean seed\?$"):
        with_sets(config, ["train.sed=7"])


def test_loading_imports_nothing_heavy(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(MINIMAL + "trl: {adam_beta2: 0.95}\npeft: {bias: none}\n")
    program = (
        "import sys, pathlib, job.config\n"
        "assert 'ruamel.yaml' not in sys.modules, 'the schema alone needs no YAML parser'\n"
        f"job.config.load_config(pathlib.Path({str(path)!r}))\n"
        "assert 'ruamel.yaml' in sys.modules\n"
        "heavy = {'torch', 'transformers', 'trl', 'peft', 'datasets', 'accelerate', 'boto3', 'botocore', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
