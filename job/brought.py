"""What a node that does not lead brings: tokenizer, base and rows, each held against what the leader has."""

import shutil
import time
from collections.abc import Callable, Mapping

from job.config import RunConfig, trajectory_diff
from job.errors import ConfigError, DataError
from job.host.gang_messages import Begin
from job.inputs import Listener, bring_init, bring_tokenizer, bring_weights, in_place, reuse
from job.preflight import check_hooks, check_installed, check_room, same_hooks
from job.rundir import RunDir
from job.storage.pull import Pull, Pulled
from job.storage.records import RunRecord
from job.storage.store import NotFound, ObjectStore

SEEN_LATE_SECONDS = 60.0  # a shared filesystem shows what another node has just written so much later at most
PAUSE_SECONDS = 1.0


class Brought:
    """`stopped()`: nothing more is to be brought; what is under way then ends with Stopped."""

    def __init__(
        self,
        config: RunConfig,
        record: RunRecord | None,
        store: ObjectStore,
        run: RunDir,
        stopped: Callable[[], bool],
        listener: Listener,
    ) -> None:
        self._config, self._store, self._run, self._stopped, self._listener = config, store, run, stopped, listener
        self._base_source = record.base_source if record else config.model.base
        self._pull = Pull(buckets=config.storage, progress=listener.pulling, stopped=stopped, notice=listener.message)
        self._base: Pulled | None = None
        self._fingerprint = ""

    def early(self) -> None:
        """What can be checked and brought without the leader. Raises: as `gather`."""
        check_installed(self._config)
        check_hooks(self._config, begun=True)
        check_room(self._run)
        self._base = bring_weights(self._config, self._base_source, self._run, self._pull)

    def all_of(self, told: Begin) -> None:
        """Raises: DataError when something here is not what the leader has; ConfigError; as `gather`."""
        config, run, pull = RunConfig.from_dict(told.config), self._run, self._pull
        if differences := trajectory_diff(self._config, config):
            raise ConfigError(f"node 0 runs another config: {'; '.join(differences)}")
        if self._base is None or self._base.source != told.base_source:
            self._base = bring_weights(config, told.base_source, run, pull)
        in_place(run, self._base, "base")
        same("model.base", self._base, told.base)
        tokenizer = bring_tokenizer(config, told.tokenizer_source, run, pull)
        in_place(run, tokenizer, "tokenizer")
        same("the tokenizer", tokenizer, told.tokenizer)
        self._rows(told.fingerprint)
        same_hooks(config, run)
        if told.init_source is not None:
            same("model.init", bring_init(config, told.init_source, run, pull, self._listener), told.init)

    def _rows(self, fingerprint: str) -> None:
        if fingerprint == self._fingerprint:
            return
        shutil.rmtree(self._run.prepared, ignore_errors=True)
        until = time.monotonic() + SEEN_LATE_SECONDS
        while True:
            try:
                reuse(fingerprint, self._store, self._run)
                break
            except NotFound:
                if time.monotonic() > until or self._stopped():
                    raise
            time.sleep(PAUSE_SECONDS)
        self._fingerprint = fingerprint


def same(name: str, here: Pulled, there: Mapping[str, str]) -> None:
    """Raises: DataError when the leader has another file, or has it where here is none."""
    for file, digest in there.items():
        ours = here.files.get(file, "no such file")
        if ours != digest:
            raise DataError(
                f"{name}: {here.source}/{file} is not what node 0 has: {ours} here, {digest} there; "
                "give all nodes the same files"
            )
