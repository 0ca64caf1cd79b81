"""What is handed to a scheduler that runs containers: which run, how its config gets there, and under what name."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from job.config import RunConfig
from job.deploy.credentials import holds_credential
from job.deploy.grace import grace_seconds
from job.deploy.kubernetes_values import STATE
from job.errors import ConfigError

NAME = "sft-job"  # of the container, of the program, and of a run whose name has no letter that may stand in a label
DIGEST_LENGTH = 8
NAME_LENGTH = 46  # of a job: room is left for -node-0-9999 and five letters more, which controllers add
SET_BY_IMAGE = {"HOME": STATE, "SFT_JOB_HOME": STATE}
VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}")


@dataclass(frozen=True)
class HandedOver:
    """One run. `text` is its RUN.yaml, word for word; None: the run folder is there, and says all."""

    name: str  # the last part of the run folder's
    argument: str  # RUN, as it was given
    text: str | None
    sets: tuple[str, ...]
    grace_seconds: int
    on_cpu: bool

    def words(self, config_at: str) -> list[str]:
        """The arguments of sft-job there, where the RUN.yaml is to be had under this name."""
        place = self.argument if self.text is None else config_at
        return ["run", place, *(word for setting in self.sets for word in ("--set", setting))]


def refuse_unknown(argument: str, sets: tuple[str, ...], known: Iterable[str] | None) -> None:
    """`known`: the variables that are set there besides the image's own, None where a secret may set any.

    Raises: ConfigError for a variable of the config that is not set there, whether or not it is set here.
    """
    if known is None:
        return
    text = _text(argument) or ""
    named = dict.fromkeys(_variables(text), argument)
    named |= {name: f"--set {setting}" for setting in sets for name in _variables(setting)}
    if missing := sorted({*named} - {*known, *SET_BY_IMAGE}):
        how = "name a secret that has it" if holds_credential(missing[0]) else f"give it with --env {missing[0]}=VALUE"
        raise ConfigError(f"{named[missing[0]]} names ${{{missing[0]}}}: that is not set in the container; {how}")


def handed_over(
    config: RunConfig,
    argument: str,
    sets: tuple[str, ...],
    shared: tuple[str, ...] = (),
) -> HandedOver:
    """`shared`: the folders that are mounted there. Raises: ConfigError for a place on a disk that is not there."""
    if "://" not in config.run and not any(Path(config.run).is_relative_to(folder) for folder in shared):
        raise ConfigError(
            f"the run folder is {config.run}: containers have no such disk, and all would be lost with them; "
            "give s3://bucket/prefix"
        )
    for uri in _inputs(config):
        if "://" not in uri and not Path(uri).is_absolute():
            raise ConfigError(
                f"{uri} is a path in this folder, which containers do not have: give s3://bucket/prefix, "
                "hf://org/name, or where it lies in the image or on a volume"
            )
    text = _text(argument)
    return HandedOver(
        name=config.run.rstrip("/").rsplit("/", 1)[-1],
        argument=argument if text is not None else config.run,
        text=text,
        sets=sets,
        grace_seconds=grace_seconds(config),
        on_cpu=config.parallel.device == "cpu",
    )


def _text(argument: str) -> str | None:
    """Of a RUN.yaml, word for word; None where RUN is a run folder, or the file cannot be read as text."""
    if not argument.endswith((".yaml", ".yml")):
        return None
    try:
        return Path(argument).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None  # reading it as a config says what is wrong with it


def _variables(text: str) -> set[str]:
    """Those that a config's text names, comment lines left out."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return {name for line in lines for name in VARIABLE.findall(line)}


def _inputs(config: RunConfig) -> Iterator[str]:
    """Every place that the run reads; a chat template's is a name as well."""
    model = config.model
    yield from (place for place in (model.base, model.tokenizer, model.init, config.hooks) if place is not None)
    yield from (source.uri for source in config.data.train)
    if isinstance(config.data.eval, str):
        yield config.data.eval


def job_name(run: HandedOver, *more: object) -> str:
    """A DNS label that tells people the run. A job is immutable, so what tells it from others is part of its name."""
    words = re.sub(r"[^a-z0-9]+", "-", run.name.lower(), flags=re.ASCII).strip("-")
    if not words or not words[0].isalpha():
        words = f"{NAME}-{words}".strip("-")
    digest = _digest(run.text or run.argument, run.sets, *more)  # however the path of RUN.yaml was written
    return f"{words[: NAME_LENGTH - 1 - DIGEST_LENGTH].rstrip('-')}-{digest}"


def _digest(*parts: object) -> str:
    text = json.dumps(parts, sort_keys=True, default=vars)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]
