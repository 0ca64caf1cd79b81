"""A run that nothing happens to, beside the cluster: all that were interrupted are to end in its very tensors."""

import tempfile
from pathlib import Path
from typing import Self

from job.errors import ExitCode
from job.storage.store import ObjectStore
from tests.tiny_runs import TinyRuns, final_tensors


class Alone:
    """Computed while tests wait for Slurm; `ranks` are all on one node."""

    def __init__(self, runs: TinyRuns, ranks: int) -> None:
        self._runs = runs
        self._job = runs.job("alone", parallel__nproc_per_node=ranks)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._job.process.poll() is None:
            self._job.process.kill()
            self._job.process.wait()

    def assert_equals(self, store: ObjectStore) -> None:
        """Bit for bit."""
        assert self._job.ended() == ExitCode.DONE, self._job.said()
        with tempfile.TemporaryDirectory() as folder:
            places = (self._runs.store("alone"), store)
            whole, ours = (final_tensors(place, Path(folder) / str(at)) for at, place in enumerate(places))
        assert ours.keys() == whole.keys() and ours
        for name, tensor in ours.items():
            assert tensor.tobytes() == whole[name].tobytes(), name
