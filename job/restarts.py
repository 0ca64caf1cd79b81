"""Whether ranks that failed are started again in place: from the last commit, at most twice without a new one."""

from job.errors import JobError, NodeLost, NotFinite, RankCrashed, RankHung

RESTARTS = 2  # without a new commit
LOSSES = 5  # of nodes, likewise: a node may well be taken away several times


class Restarts:
    """One attempt's count."""

    def __init__(self) -> None:
        self._commit: str | None = None
        self._count = self._losses = 0
        self._not_finite: set[str] = set()

    def refuse(self, error: JobError, commit: str | None, stepped: bool) -> None:
        """Raises: the error that ends the attempt; nothing where the ranks may begin again at `commit`.

        What crashes before the attempt's first step would crash there again: the scheduler may try another machine.
        A step that is not finite is replayed once: the same again is no accident of the hardware.
        """
        if not isinstance(error, RankCrashed | NotFinite):
            raise error
        lost = isinstance(error, NodeLost)
        if isinstance(error, RankCrashed) and not isinstance(error, RankHung) and not lost and not stepped:
            raise error
        if commit != self._commit:
            self._commit, self._count, self._losses = commit, 0, 0
        if lost:
            self._losses += 1
            if self._losses > LOSSES:
                raise NodeLost(f"{error}, the {self._losses}th time since {commit or 'the start'}") from error
            return
        self._count += 1
        since = commit or "the start"
        if isinstance(error, NotFinite):
            if str(error) in self._not_finite:
                raise NotFinite(f"{error}; a replay from {since} gave the same") from error
            self._not_finite.add(str(error))
        if self._count > RESTARTS:
            raise type(error)(f"{error}; {RESTARTS} restarts from {since} got no further") from error
