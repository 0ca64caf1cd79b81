"""The values that sbatch takes for one option each, by its manual and as tried on Slurm 22.05; refused before it can.

sbatch splits an #SBATCH line at spaces and takes quotes and # for its own, so no value may hold any.
"""

import re

from job.errors import ConfigError

MINUTE, HOUR, DAY = 60, 3600, 86400
ENDLESS = ("UNLIMITED", "INFINITE")
MOST_DAYS = 365  # sbatch counts in 32 bits: of 49,711 days 17 hours are left
TIMES = (  # man sbatch, --time
    (r"(\d+)", (MINUTE,)),
    (r"(\d+):(\d+)", (MINUTE, 1)),
    (r"(\d+):(\d+):(\d+)", (HOUR, MINUTE, 1)),
    (r"(\d+)-(\d+)", (DAY, HOUR)),
    (r"(\d+)-(\d+):(\d+)", (DAY, HOUR, MINUTE)),
    (r"(\d+)-(\d+):(\d+):(\d+)", (DAY, HOUR, MINUTE, 1)),
)
MEGABYTES = {"K": 1 / 1024, "": 1, "M": 1, "G": 1024, "T": 1024**2}
LEAST_MEGABYTES, MOST_MEGABYTES = 1024, 1024**3  # what a run's programs take by themselves; more than any node has
LAST_TASK = 4_000_000  # man slurm.conf, MaxArraySize
_RESOURCE = r"[A-Za-z_][\w.-]*(:\w[\w.-]*)*"
FORMS = {
    "job_name": (r"[^\s'\"\\#/%]+", "a name without spaces, quotes, slashes, % and #"),
    "nodes": (r"[1-9]\d{0,4}(-[1-9]\d{0,4})?", "a number like 4, or a range like 2-4"),
    "gpus_per_node": (r"((?!gpu:)[A-Za-z_][\w.-]*:)?\d{1,3}", "a number like 8, perhaps after a type: a100:8"),
    "gres": (f"{_RESOURCE}(,{_RESOURCE})*", "resources as the site names them, like gpu:a100:8"),
    "mem": (r"\d+([KMGT]B?)?", "a number with its unit, like 64G; 0 is all of the node's"),
    "array": (
        r"\d+(-\d+(:[1-9]\d*)?)?(,\d+(-\d+(:[1-9]\d*)?)?)*(%\d+)?",
        "task numbers like 1-10, 1,3,7 or 1-100%4",
    ),
}
PLAIN = (r"[^\s'\"\\#]+", "a value without spaces, quotes, backslashes and #")


def refuse_value(name: str, value: str) -> None:
    """`name` of a field of Batch. Raises: ConfigError, naming the option and what it takes."""
    form, means = FORMS.get(name, PLAIN)
    option = f"--{name.replace('_', '-')} is {value!r}"
    flags = re.IGNORECASE | re.ASCII if name == "mem" else re.ASCII if name in FORMS and name != "job_name" else 0
    if not re.fullmatch(form, value, flags):
        raise ConfigError(f"{option}: give {means}")
    if name == "nodes" and "-" in value and int(value.partition("-")[0]) > int(value.partition("-")[2]):
        raise ConfigError(f"{option}: a range begins with the smaller number, like 2-4")
    if name == "mem":
        _refuse_memory(option, value)
    if name == "array":
        tasks(value)


def tasks(array: str) -> list[range]:
    """The numbers that --array names. Raises: ConfigError where it names none, or more than Slurm knows."""
    option = f"--array is {array!r}"
    form, means = FORMS["array"]
    if not re.fullmatch(form, array, re.ASCII):
        raise ConfigError(f"{option}: give {means}")
    found = []
    for first, last, step in re.findall(r"(\d+)(?:-(\d+)(?::(\d+))?)?", array.partition("%")[0]):
        numbers = range(int(first), int(last or first) + 1, int(step or 1))
        if not numbers:
            raise ConfigError(f"{option}: a range begins with the smaller number, like 1-10")
        if numbers[-1] > LAST_TASK:
            raise ConfigError(f"{option}: no Slurm has a task {numbers[-1]}; count from 0 or 1")
        found.append(numbers)
    return found


def time_seconds(text: str) -> int | None:
    """A time limit of sbatch in seconds; None: there is none, which may also be written 0. Raises: ConfigError."""
    if text.upper() in ENDLESS:
        return None
    for form, units in TIMES:
        if match := re.fullmatch(form, text, re.ASCII):
            seconds = sum(int(number) * unit for number, unit in zip(match.groups(), units, strict=True))
            if seconds > MOST_DAYS * DAY:
                raise ConfigError(f"--time {text} is more than a year: give less, or UNLIMITED")
            return seconds or None
    raise ConfigError(f"--time is {text!r}: give minutes, hours:minutes:seconds or days-hours, like 04:00:00")


def _refuse_memory(option: str, value: str) -> None:
    number, unit = re.findall(r"\d+|[KMGT]|$", value.upper())[:2]
    megabytes = int(number) * MEGABYTES[unit]
    if megabytes and not LEAST_MEGABYTES <= megabytes <= MOST_MEGABYTES:
        few = megabytes < LEAST_MEGABYTES
        raise ConfigError(
            f"{option}: {'less than sft-job itself needs' if few else 'more than any node has'}; "
            "sbatch counts megabytes where there is no unit: give one, like 64G"
        )
