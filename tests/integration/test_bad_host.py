"""Missing hardware, room, objects or permissions: one clear line, the right exit code, the run folder as it was."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from job.errors import ExitCode
from job.storage.store import open_store
from tests.harness import finish
from tests.refusals import Place, left_in
from tests.servers import Bucket, Fault, FaultyProxy

pytestmark = pytest.mark.slow


# ---- hardware


def test_gpus_that_are_asked_for_or_granted_and_not_there(begun: Place) -> None:
    if list(Path("/dev").glob("nvidia[0-9]")):
        pytest.skip("this machine has a GPU")
    begun.refused(ExitCode.HARDWARE, "parallel.device is cuda", "parallel.device: cpu", parallel__device="cuda")
    begun.extra = {"SLURM_GPUS_ON_NODE": "2"}
    begun.refused(ExitCode.HARDWARE, "the scheduler granted GPUs", "parallel.device: cpu", parallel__device="auto")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    """Mounts filesystems of a given size."""
    mounted: list[Path] = []

    def mount(name: str, size: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("only root can mount a small filesystem to fill up")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def test_no_room_for_the_weights_in_the_home(place_on_s3: Place, small_disk: Callable[[str, str], Path]) -> None:
    small_disk("home", "100M")  # room for a run, not for pulling
    place_on_s3.refused(ExitCode.HARDWARE, "home", "free some")
    assert open_store(place_on_s3.fields["run"]).list("") == []


@pytest.mark.parametrize("size", ["8k", "64k", "20M"])
def test_no_room_for_a_run_in_the_home(begun: Place, small_disk: Callable[[str, str], Path], size: str) -> None:
    home = small_disk("home", size)
    (home / "filling").write_bytes(bytes(4096))
    begun.refused(ExitCode.HARDWARE, "home", "SFT_JOB_HOME")


def test_no_room_in_the_run_folder(place: Place, small_disk: Callable[[str, str], Path]) -> None:
    disk = small_disk("disk", "8k")
    (disk / "filling").write_bytes(bytes(8 * 1024))
    place.refused(ExitCode.HARDWARE, str(disk), "no space", run=str(disk))


def test_no_room_for_a_checkpoint_in_the_run_folder(place: Place, small_disk: Callable[[str, str], Path]) -> None:
    disk = small_disk("disk", "200k")  # one is of about 400 KB
    job = finish(place.arguments({"run": str(disk)}), place.home, code=ExitCode.HARDWARE)
    assert "Traceback" not in job.said() and "space" in job.said().splitlines()[-1]
    assert not list(disk.rglob("commits/*.json")) and not list(disk.rglob(".tmp-*")) and left_in(place.home) == []


# ---- storage


def test_a_bucket_that_is_not_there(place_on_s3: Place) -> None:
    for name in ("run", "model.base"):
        place_on_s3.refused(ExitCode.STORAGE, "bucket nowhere does not exist", **{name: "s3://nowhere/x"})
    place_on_s3.refused(ExitCode.STORAGE, "bucket nowhere does not exist", data__train=["s3://nowhere/x.jsonl"])
    assert open_store(place_on_s3.fields["run"]).list("") == []


def test_a_key_that_is_not_there(place_on_s3: Place, s3: Bucket) -> None:
    place_on_s3.refused(ExitCode.DATA, f"{s3.uri}/none.jsonl", "data.train", data__train=[f"{s3.uri}/none.jsonl"])
    place_on_s3.refused(ExitCode.DATA, f"{s3.uri}/none", "model.base", model__base=f"{s3.uri}/none")
    assert open_store(place_on_s3.fields["run"]).list("") == []


@pytest.mark.parametrize("refused", ["/base/config.json", "/chat.jsonl", "/never/", "(PUT|POST) .*/never/"])
def test_credentials_that_are_refused(place_on_s3: Place, faulty: FaultyProxy, refused: str) -> None:
    faulty.faults.append(Fault("status", match=refused, status=403, code="AccessDenied"))
    place_on_s3.extra["AWS_ENDPOINT_URL"] = faulty.endpoint
    place_on_s3.refused(ExitCode.STORAGE, "refused", "credentials", refused.split("/")[1])
    faulty.faults.clear()
    assert open_store(place_on_s3.fields["run"]).list("") == []


def test_a_damaged_run_json(begun: Place) -> None:
    record = begun.root / "begun" / "run.json"
    record.write_bytes(record.read_bytes()[:-20])
    begun.refused(ExitCode.DATA, str(record), "damaged")
