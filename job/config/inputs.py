"""What goes in: the base model and the data."""

import string
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from job.config.section import Section
from job.config.values import AutoOrFlag, Choice, Expanded, Names, Positive, ShareOrPlace, SourcePlace

Loss = Annotated[Literal["auto", "assistant", "last", "weight", "completion", "all"], Choice()]
LARGEST_WEIGHT = 1000.0  # more is a slip: an epoch would be that many epochs


def _tokens(texts: tuple[str, ...]) -> tuple[str, ...]:
    if not all(text.strip() for text in texts) or len(set(texts)) < len(texts):
        raise ValueError("must name each token once, and none that is empty")
    return texts


class ModelConfig(Section):
    """The base model and how it is loaded."""

    base: SourcePlace = Field(
        description="Base weights: s3://bucket/prefix, a path (read in place), or hf://org/name@revision."
    )
    tokenizer: SourcePlace | None = Field(None, description="Where the tokenizer comes from; null: the base's own.")
    init: SourcePlace | None = Field(
        None,
        description="Start from an adapter, another run's result or full weights, with a fresh optimizer at step 0.",
    )
    precision: Annotated[
        Literal["auto", "bf16", "fp32"],
        Choice(refused={"fp16": "it overflows and needs loss scaling"}),
    ] = Field("auto", description="Compute precision; auto: bf16 where the device computes it, else fp32.")
    quantize: Annotated[Literal["nf4"], Choice()] | None = Field(
        None, description="nf4: frozen base weights in four bits; needs the extra bnb."
    )
    chat_template: Expanded | None = Field(None, description="A chat template: a file, or the name of a built-in one.")
    add_tokens: Annotated[Names, AfterValidator(_tokens)] = Field(
        (), description="Tokens to add to the vocabulary; embeddings and head are then trained, with LoRA as well."
    )
    attn_implementation: Annotated[
        Literal["auto", "eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3"], Choice()
    ] = Field("auto", description="The attention kernel, as transformers names it.")
    trust_remote_code: bool = Field(False, description="Run model code that comes with the base.")


def _template(text: str) -> str:
    """A column's name, or a template with columns in braces."""
    if not text.strip():
        raise ValueError("is empty; write a column's name or a template like '{text} '")
    if "{" not in text and "}" not in text:
        return text
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise ValueError(f"{text!r} is not a template ({error}); double a brace that is meant literally") from None
    if not names or not all(names):
        raise ValueError(f"{text!r} names no column; write it in braces, like {{text}}")
    return text


Template = Annotated[str, AfterValidator(_template)]


class Columns(Section):
    """Which columns of a row make prompt and completion: their names, or templates with the names in braces."""

    prompt: Template = Field(description="A column's name, or a template such as '{text} '.")
    completion: Template = Field(description="A column's name, or a template such as '{target}'.")


Format = Annotated[
    Literal["auto", "chat", "prompt_completion", "alpaca", "text"],
    Choice(refused=dict.fromkeys(("sharegpt", "openai", "messages"), "it is a spelling of chat, known by its columns")),
]


class DataSource(Section):
    """One source of rows; what is null here is as in `data`. A bare URI stands for `{uri: URI}`."""

    uri: SourcePlace = Field(
        description="s3://, hf://datasets/org/name or a path: one file, a glob like s3://data/chat-*.jsonl, or a "
        "folder and all below it. Files: jsonl, json, csv, tsv (each also .gz or .zst), parquet, arrow."
    )
    split: str | None = Field(
        None,
        min_length=1,
        description="The split, where the source has several, by the names of files or folders; null: train.",
    )
    weight: float | None = Field(
        None,
        gt=0,
        le=LARGEST_WEIGHT,
        description="An epoch takes weight x rows of it, in turn: 2 is each row twice, 0.5 half of them and the next "
        "epoch the other half; null: 1.",
    )
    format: Format | None = Field(None, description="As data.format, for this source.")
    columns: Columns | None = Field(None, description="As data.columns, for this source.")
    loss: Loss | None = Field(None, description="As data.loss, for this source.")

    @model_validator(mode="before")
    @classmethod
    def _bare_uri(cls, value: Any) -> Any:
        return {"uri": value} if isinstance(value, str) else value


def _sources(value: object) -> object:
    if isinstance(value, str | dict):
        return [value]
    if not value:
        raise ValueError("names no data; write at least one URI, like [s3://data/chat-*.jsonl]")
    return value


Sources = Annotated[tuple[DataSource, ...], Field(strict=False), BeforeValidator(_sources)]


class DataConfig(Section):
    """The rows, and which of their tokens are trained."""

    train: Sources = Field(description="The training data: URIs, or objects with a URI and options.")
    eval: ShareOrPlace = Field(None, description="Validation data: a share of the rows (0.2), a URI, or null for none.")
    format: Format = Field(
        "auto",
        description="How a row is laid out. auto: by the columns of a file's first row, the first of these it has: "
        "chat (messages, conversations, conversation), prompt_completion, alpaca (instruction, input, output; a chat "
        "where there is a chat template, else in Alpaca's own prompt), text.",
    )
    columns: Columns | None = Field(None, description="Columns, or templates of columns, for prompt and completion.")
    loss: Loss = Field(
        "auto",
        description="Which tokens are trained. Of a chat: assistant (all its turns), last (of them), weight (turns of "
        "weight 1), all; of a pair: completion, all. auto: what the model is to write, by weight where rows have some.",
    )
    append_eos: AutoOrFlag = Field("auto", description="Whether a row ends in the EOS token.")
    max_length: Positive = Field(1024, description="The longest row, in tokens.")
    overlong: Annotated[Literal["drop", "truncate", "split", "error"], Choice()] = Field(
        "drop",
        description="What happens to a longer row: left out, cut at its end, split into several rows (an answer stays "
        "whole, with what fits of its question; a trained token stays one, once), or refused. drop refuses "
        "to lose more than a tenth of the rows or of the tokens to train.",
    )
