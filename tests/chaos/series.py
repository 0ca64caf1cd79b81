"""Many experiments, two at a time; what fails says how to repeat it."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from tests.chaos.experiment import Experiment, Laboratory

AT_ONCE = 3  # on two cores: a run waits a third of its time


def conduct_all(
    place: Callable[[str], Laboratory],
    experiments: Mapping[str, Experiment],
    seed: int,
    say: Callable[[str], None] = print,
    at_once: int = AT_ONCE,
) -> list[str]:
    """The failures, each with its cause. `place`: where an experiment of that name is made."""

    def conduct(name: str) -> str | None:
        experiment = experiments[name]
        try:
            story = place(name).conduct(name, experiment)
        except Exception as error:
            again = f"python -m tests.chaos --seed {seed} --only {name}"
            say(f"FAILED {name}: {experiment}; seed {seed}; repeat with: {again}")
            return f"{name}: {experiment}\n{type(error).__name__}: {error}\nrepeat with: {again}"
        say(f"{name}: {experiment} -> {story}")
        return None

    for name, experiment in experiments.items():
        place(name).left_alone(experiment.layout)  # not by two at once
    with ThreadPoolExecutor(at_once) as pool:
        return [failure for failure in pool.map(conduct, experiments) if failure is not None]
