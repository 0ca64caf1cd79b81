"""Options of sbatch that are passed through as they are: one at a time, and none that the script sets by itself.

sbatch takes any beginning of an option's name that fits one option only, splits an #SBATCH line at spaces, drops
backslashes, and takes for a comment what follows a # outside of quotes (tried on Slurm 22.05).
"""

import re
import shlex

from job.errors import ConfigError

OURS = (  # with a line of their own in the script
    *("job-name", "nodes", "cpus-per-task", "gpus-per-node", "gres", "mem", "time"),
    *("partition", "account", "qos", "constraint", "array", "output"),
)
INSTEAD = {  # of a line of ours, which sbatch would not take beside them
    **dict.fromkeys(("gpus", "gpus-per-task", "gpus-per-socket"), "gpus-per-node"),
    **dict.fromkeys(("mem-per-cpu", "mem-per-gpu"), "mem"),
    "cpus-per-gpu": "cpus-per-task",
}
ALWAYS = ("signal", "requeue", "no-requeue", "open-mode")  # there already, but to be had otherwise
FIXED = ("ntasks", "ntasks-per-node")  # the script rests on what it says itself
NOT_OF_SBATCH = ("runtime", "bind", "sets", "set", "extra", "dry-run")
NOT_QUEUED = ("wait", "wrap", "test-only", "help", "usage", "version")
SHORT = {
    "A": "account", "C": "constraint", "G": "gpus", "J": "job-name", "N": "nodes", "V": "version", "W": "wait",
    "a": "array", "c": "cpus-per-task", "h": "help", "n": "ntasks", "o": "output", "p": "partition", "q": "qos",
    "t": "time",
}  # fmt: skip
WITHOUT_VALUE = "HOQVWhksv"
KNOWN = (*OURS, *INSTEAD, *ALWAYS, *FIXED, *NOT_OF_SBATCH, *NOT_QUEUED)


def option_name(option: str) -> str:
    """Of an option of sbatch as it is written: `--reservation=x`, `--exclusive`, `-x n1`."""
    if option.startswith("--"):
        return re.split(r"[=\s]", option[2:], maxsplit=1)[0]
    return SHORT.get(option[1:2], option[1:2])


def refuse_extra(option: str) -> None:
    """Raises: ConfigError for what is not one option, and for one that is given in another way."""
    what = f"--extra is {option!r}"
    words = _words(option, what)
    if not words or not re.fullmatch(r"--[a-z0-9][\w-]*(=.*)?|-[A-Za-z].*", words[0], re.ASCII | re.DOTALL):
        raise ConfigError(f"{what}: give an option of sbatch as it is, like --extra=--reservation=x")
    name = option_name(words[0])
    meant = next((known for known in KNOWN if known.startswith(name)), name)
    if words[0].startswith("--") and name not in KNOWN and name != meant:
        raise ConfigError(f"{what}: sbatch may take it for --{meant}; write its name in full")
    if name in (*OURS, *NOT_OF_SBATCH):
        raise ConfigError(f"{what}: give --{name} itself")
    if name in FIXED:
        raise ConfigError(f"{what}: the script starts one supervisor on each node, and sets that itself")
    if name in NOT_QUEUED:
        raise ConfigError(f"{what}: with it sbatch would not just queue the job; leave it out")
    _refuse_second(words, what)


def _words(option: str, what: str) -> list[str]:
    """As sbatch would split it, where shells and sbatch agree."""
    if "\\" in option:
        raise ConfigError(f"{what}: sbatch drops backslashes; put the value into quotes, like --comment='a b'")
    try:
        words = shlex.split(option)
        seen = shlex.split(option, comments=True)
    except ValueError as error:
        raise ConfigError(f"{what}: a quote is not closed") from error
    if words != seen:
        raise ConfigError(f"{what}: sbatch takes what follows # for a comment; put the value into quotes")
    return words


def _refuse_second(words: list[str], what: str) -> None:
    first, *others = words
    long = first.startswith("--")
    if any(word.startswith("-") for word in others) or (not long and first[1] in WITHOUT_VALUE and len(first) > 2):
        raise ConfigError(f"{what}: give one option each, like --extra=--exclusive --extra=--reservation=x")
    if not long and first[2:3] == "=":
        raise ConfigError(f"{what}: a short option's value comes without =, like -x n1")
    if others and long and "=" not in first:  # not every option takes the next word for its value
        raise ConfigError(f"{what}: join name and value by =, like {first}={others[0]}")
    if len(others) > (not long and len(first) == 2):
        raise ConfigError(f"{what}: put a value with spaces into quotes, like --extra=\"--comment='a b'\"")
