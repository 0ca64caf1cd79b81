"""What is handed to a scheduler that runs containers: which run, how its config gets there, and under what name."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from job.config import RunConfig
from job.deploy.grace import grace_seconds
from job.errors import ConfigError

NAME = "sft-job"  # of the container, of the program, and of a run whose name has no letter that may stand in a label
DIGEST_LENGTH = 8
NAME_LENGTH = 46  # of a job: room is left for -node-0-9999 and five letters more, which controllers add
SET_BY_IMAGE = ("HOME", "SFT_JOB_HOME")
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


def handed_over(
    config: RunConfig,
    argument: str,
    sets: tuple[str, ...],
    shared: tuple[str, ...] = (),
    known: tuple[str, ...] | None = None,
) -> HandedOver:
    """`shared`: the folders that are mounted there; `known`: the variables that are set there besides
    the image's own, None where a secret may set any.

    Raises: ConfigError for a run folder on a disk that is not there, and for a variable that is not set there.
    """
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
    text = None
    if argument.endswith((".yaml", ".yml")):
        text = Path(argument).read_text(encoding="utf-8-sig")
    if known is not None:
        named = dict.fromkeys(_variables(text or ""), argument)
        named |= {name: f"--set {setting}" for setting in sets for name in _variables(setting)}
        if missing := sorted(set(named) - {*known, *SET_BY_IMAGE}):
            raise ConfigError(
                f"{named[missing[0]]} names ${{{missing[0]}}}: that is not set in the container; give it with "
                f"--env {missing[0]}=VALUE"
            )
    return HandedOver(
        name=config.run.rstrip("/").rsplit("/", 1)[-1],
        argument=argument if text is not None else config.run,
        text=text,
        sets=sets,
        grace_seconds=grace_seconds(config),
        on_cpu=config.parallel.device == "cpu",
    )


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
    return f"{words[: NAME_LENGTH - 1 - DIGEST_LENGTH].rstrip('-')}-{_digest(run.text, run.argument, run.sets, *more)}"


def _digest(*parts: object) -> str:
    text = json.dumps(parts, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]
