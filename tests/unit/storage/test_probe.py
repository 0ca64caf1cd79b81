"""Each thing a run needs of its store is found out: there, a loss that is said, or no place for a run."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from job.errors import ConfigError, HardwareError, Stopped, StorageError
from job.storage import needs
from job.storage.finding import Finding, Status, cannot_run
from job.storage.memory import MemoryStore
from job.storage.probe import LAG_SECONDS, StoreProbes
from job.storage.store import Entry, ObjectStore
from tests.committing import refusing
from tests.hooked_store import HookedStore

FOLDER = "doctor-1"


def probed(store: ObjectStore, tmp_path: Path) -> tuple[dict[str, Finding], list[str]]:
    """(findings by name, keys that had to stay), on a clock that only waiting moves."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    probes = StoreProbes(store, FOLDER, tmp_path, clock=lambda: now[0], sleep=sleep)
    found = {finding.name: finding for finding in probes.run()}
    return found, probes.clean_up()


def others(found: dict[str, Finding], *names: str) -> set[Status]:
    return {finding.status for name, finding in found.items() if name not in names}


def test_a_store_of_any_kind_passes_and_is_left_as_it_was(any_store: ObjectStore, tmp_path: Path) -> None:
    any_store.put("runs/here", b"mine")
    before = any_store.list("")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    found, left = probed(any_store, scratch)
    assert others(found) == {Status.OK}
    assert len(found) == 12 and left == []
    assert any_store.list("") == before and list(scratch.iterdir()) == []
    assert cannot_run(list(found.values()), any_store.uri) is None


def test_a_store_that_overwrites_in_silence_is_usable_and_the_loss_is_said(tmp_path: Path) -> None:
    found, _ = probed(MemoryStore(conditional=False), tmp_path)
    assert found[needs.CONDITIONAL.name].status == Status.WARNING
    assert "in silence" in found[needs.CONDITIONAL.name].seen and "nonce" in found[needs.CONDITIONAL.name].means
    assert {found[name].status for name in (needs.OWN.name, needs.RACE.name)} == {Status.NOT_TRIED}
    assert others(found, needs.CONDITIONAL.name, needs.OWN.name, needs.RACE.name) == {Status.OK}
    assert cannot_run(list(found.values()), "s3://b/r") is None


@pytest.mark.parametrize(
    ("operation", "match", "probe", "action"),
    [
        ("list", "", needs.LIST, "s3:ListBucket"),
        ("put", "one", needs.PUT, "s3:PutObject"),
        ("get", "one", needs.GET, "s3:GetObject"),
        ("upload", "", needs.UPLOAD, "s3:PutObject"),
        ("download", "", needs.DOWNLOAD, "s3:GetObject"),
    ],
)
def test_what_no_run_can_do_without_is_missing_with_its_permission(
    tmp_path: Path, operation: str, match: str, probe: needs.Probe, action: str
) -> None:
    refuse = refusing({operation}, match, denied())
    found, _ = probed(HookedStore(MemoryStore(), before=refuse), tmp_path)
    assert found[probe.name].status == Status.MISSING
    error = cannot_run(list(found.values()), "s3://b/r")
    assert isinstance(error, StorageError) and error.exit_code == 74
    assert str(error) == f"s3://b/r cannot hold a run: {probe.name}: refused: AccessDenied, allow {action}"
    for finding in found.values():
        tried = not any(found[name].status != Status.OK for name in finding_needs(finding))
        assert (finding.status != Status.NOT_TRIED) == tried, finding


def test_a_store_that_cannot_be_reached_is_asked_nothing_more(tmp_path: Path) -> None:
    asked: list[str] = []

    def away(operation: str, key: str) -> None:
        asked.append(operation)
        raise StorageError("nobody is there")

    found, _ = probed(HookedStore(MemoryStore(), before=away), tmp_path)
    assert found[needs.REACH.name].status == Status.MISSING
    assert others(found, needs.REACH.name) == {Status.NOT_TRIED}
    assert set(asked) <= {"list", "delete"}


def test_without_permission_to_delete_it_is_a_warning_and_what_is_left_is_known(tmp_path: Path) -> None:
    inner = MemoryStore()
    found, left = probed(HookedStore(inner, before=refusing({"delete"})), tmp_path)
    assert found[needs.DELETE.name].status == Status.WARNING
    assert others(found, needs.DELETE.name) == {Status.OK}
    assert {entry.key for entry in inner.list("")} <= set(left)
    assert all(key.startswith(f"{FOLDER}/") for key in left)


def test_a_listing_that_lags_is_a_warning_with_its_time_and_nothing_is_left_out(tmp_path: Path) -> None:
    store = HookedStore(MemoryStore())
    store.listing = late(4)
    found, _ = probed(store, tmp_path)
    assert found[needs.LISTED.name].status == Status.WARNING and "0.5 s later" in found[needs.LISTED.name].seen
    assert others(found, needs.LISTED.name) == {Status.OK}


def test_a_listing_that_never_shows_a_new_object_is_no_place_for_a_run(tmp_path: Path) -> None:
    store = HookedStore(MemoryStore())
    store.listing = late(10**9)
    found, _ = probed(store, tmp_path)
    assert found[needs.LISTED.name].status == Status.MISSING
    assert f"within {LAG_SECONDS:.0f} s" in found[needs.LISTED.name].seen


def test_an_old_content_that_stays_is_found(tmp_path: Path) -> None:
    class Stale(HookedStore):
        def put(self, key: str, data: bytes) -> None:
            if "beat" not in key or not self.inner.list(key):
                super().put(key, data)

    found, _ = probed(Stale(MemoryStore()), tmp_path)
    assert found[needs.OVERWRITE.name].status == Status.MISSING


def test_two_winners_of_one_race_are_no_place_for_a_run(tmp_path: Path) -> None:
    class Racy(HookedStore):
        def put_if_absent(self, key: str, data: bytes) -> bool:
            if "race" not in key:
                return super().put_if_absent(key, data)
            self.inner.put(key, data)
            return True

    found, _ = probed(Racy(MemoryStore()), tmp_path)
    assert found[needs.RACE.name].status == Status.MISSING
    assert "8 of 8 writers" in found[needs.RACE.name].seen


def test_a_claim_that_is_not_known_as_ones_own_is_a_warning(tmp_path: Path) -> None:
    class Forgetful(HookedStore):
        def put_if_absent(self, key: str, data: bytes) -> bool:
            return not self.inner.list(key) and super().put_if_absent(key, data)

    found, _ = probed(Forgetful(MemoryStore()), tmp_path)
    assert found[needs.OWN.name].status == Status.WARNING
    assert others(found, needs.OWN.name) == {Status.OK}


def test_bytes_that_come_back_damaged_are_found(tmp_path: Path) -> None:
    def damage(operation: str, key: str) -> None:
        if operation == "download":
            with (tmp_path / "back").open("r+b") as file:
                first = file.read(1)
                file.seek(0)
                file.write(bytes([first[0] ^ 1]))  # the content is random: a fixed byte may be the one that is there

    found, _ = probed(HookedStore(MemoryStore(), after=damage), tmp_path)
    assert found[needs.DOWNLOAD.name].status == Status.MISSING


def test_what_is_read_has_to_be_what_was_written(tmp_path: Path) -> None:
    class Changing(HookedStore):
        def get(self, key: str) -> bytes:
            return super().get(key)[:-1]

    found, _ = probed(Changing(MemoryStore()), tmp_path)
    assert found[needs.GET.name].status == Status.MISSING


def test_a_stop_is_heard_between_two_probes(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        list(StoreProbes(MemoryStore(), FOLDER, tmp_path, stopped=lambda: True).run())


@pytest.mark.parametrize(("error", "code"), [(HardwareError("full"), 69), (ConfigError("no name"), 78)])
def test_a_cause_that_is_not_the_stores_keeps_its_exit_code(error: Exception, code: int, tmp_path: Path) -> None:
    found, _ = probed(HookedStore(MemoryStore(), before=refusing({"put"}, "one", error)), tmp_path)
    left_with = cannot_run(list(found.values()), "/runs/one")
    assert left_with is not None and left_with.exit_code == code


# ---- stand-ins


def denied() -> StorageError:
    """As a permission is refused: the one who asks is known."""
    answer = RuntimeError("403")
    answer.response = {  # type: ignore[attr-defined]
        "Error": {"Code": "AccessDenied"},
        "ResponseMetadata": {"HTTPStatusCode": 403},
    }
    error = StorageError("AccessDenied")
    error.__cause__ = answer
    return error


def late(lists: int) -> Callable[[str, list[Entry]], list[Entry]]:
    """A listing that is empty for the first so many times."""
    turns: Iterator[int] = iter(range(10**9))
    return lambda prefix, entries: entries if next(turns) >= lists else []


def finding_needs(finding: Finding) -> tuple[str, ...]:
    probes = [probe for probe in vars(needs).values() if isinstance(probe, needs.Probe)]
    return next(probe.needs for probe in probes if probe.name == finding.name)
