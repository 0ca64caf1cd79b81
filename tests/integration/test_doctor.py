"""`sft-job doctor --store` as it is typed: a line per probe, the policy on stdout, and a code."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Job, finish
from tests.servers import Bucket, Fault, FaultyProxy, free_port

pytestmark = pytest.mark.slow

ACTIONS = [  # what a request needs, by the first pattern that fits
    (r"^GET \S*list-type=2", "s3:ListBucket"),
    (r"^(GET|HEAD) ", "s3:GetObject"),
    (r"^POST \S*\?delete", "s3:DeleteObject"),
    (r"^DELETE \S*uploadId=", "s3:AbortMultipartUpload"),
    (r"^(PUT|POST) ", "s3:PutObject"),
]


def doctor(where: str, home: Path, env: dict[str, str], code: int = 0, *more: str) -> Job:
    return finish(["doctor", "--store", where, *more], home, env, code)


def statuses(job: Job) -> dict[str, str]:
    """Of the store's probes, but for how fast it answered."""
    _, _, store = job.said().partition("\nprobing ")
    lines = re.findall(r"^(ok|warning|missing|not tried) +(.*?)  ", store, re.MULTILINE)
    return {name: status for status, name in lines if name != "it answers soon"}


@pytest.fixture
def env(s3: Bucket, faulty: FaultyProxy) -> dict[str, str]:
    return {**s3.env, "AWS_ENDPOINT_URL": faulty.endpoint}


@pytest.fixture
def run(s3: Bucket) -> str:
    return f"{s3.uri}/runs/one"


def test_a_store_that_has_everything_passes_and_the_policy_is_what_was_used(
    s3: Bucket, faulty: FaultyProxy, env: dict[str, str], run: str, tmp_path: Path
) -> None:
    job = doctor(run, tmp_path, env)
    found = statuses(job)
    assert len(found) == 13 and set(found.values()) == {"ok"}
    assert job.said().splitlines()[-1].startswith(f"a run can live in {run}")
    assert "Contents" not in s3.client().list_objects_v2(Bucket=s3.name)
    policy = json.loads(job.stdout())
    allowed = {action for statement in policy["Statement"] for action in statement["Action"]}
    assert used(faulty) == allowed - {"s3:AbortMultipartUpload"}
    prefixes = [re.search(r"[?&]prefix=([^& ]*)", line) for line in faulty.seen(r"list-type=2")]
    assert prefixes and all(found and found[1].startswith("runs%2Fone%2F") for found in prefixes)
    assert faulty.seen(r"^PUT \S*partNumber=2") and faulty.seen(r"\nrange: bytes=")
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_without_permission_to_delete_a_run_can_live_and_what_stays_is_said(
    s3: Bucket, faulty: FaultyProxy, env: dict[str, str], run: str, tmp_path: Path
) -> None:
    faulty.faults.append(Fault("status", match=r"^(DELETE|POST \S*\?delete)", status=403, code="AccessDenied"))
    job = doctor(run, tmp_path, env)
    assert "refused: AccessDenied, allow s3:DeleteObject" in job.said()
    found = statuses(job)
    assert found.pop("delete") == "warning" and set(found.values()) == {"ok"}
    left = [entry["Key"] for entry in s3.client().list_objects_v2(Bucket=s3.name)["Contents"]]
    (folder,) = {key.rpartition("/")[0] for key in left}
    assert f"{len(left)} objects had to stay in {s3.uri}/{folder}" in job.said()
    assert re.search(r"with \d+ warnings?$", job.said().splitlines()[-1])


def test_without_permission_to_list_no_run_can_live_and_the_action_is_named(
    faulty: FaultyProxy, env: dict[str, str], run: str, tmp_path: Path
) -> None:
    faulty.faults.append(Fault("status", match=r"^GET \S*list-type=2", status=403, code="AccessDenied"))
    job = doctor(run, tmp_path, env, 74)
    found = statuses(job)
    assert found["list"] == "missing" and found["put"] == found["download it again"] == "ok"
    assert (
        job.said()
        .splitlines()[-1]
        .startswith(f"sft-job: {run} cannot hold a run: list: refused: AccessDenied, allow s3:ListBucket")
    )
    assert json.loads(job.stdout())["Version"] == "2012-10-17"


@pytest.mark.parametrize(
    "fault",
    [
        Fault("unconditional", match=r"^PUT "),
        Fault("status", match=r"(?s)^PUT .*\nif-none-match:", status=501, code="NotImplemented"),
    ],
    ids=lambda fault: fault.kind,
)
def test_a_store_without_conditional_writes_is_usable_with_a_warning(
    faulty: FaultyProxy, env: dict[str, str], run: str, tmp_path: Path, fault: Fault
) -> None:
    faulty.faults.append(fault)
    found = statuses(doctor(run, tmp_path, env))
    assert found.pop("put_if_absent refuses") == "warning"
    assert found.pop("a race has one winner") == found.pop("a retried claim is one's own") == "not tried"
    assert set(found.values()) == {"ok"}


def test_credentials_that_are_refused_end_it_with_the_first_probe(
    faulty: FaultyProxy, env: dict[str, str], run: str, tmp_path: Path
) -> None:
    faulty.faults.append(Fault("status", match="", status=403, code="SignatureDoesNotMatch"))
    job = doctor(run, tmp_path, env, 74)
    assert statuses(job)["list"] == "not tried"
    assert job.said().count("SignatureDoesNotMatch") == 1, "the reason stands in the last line"
    assert "cannot hold a run: reach it" in job.said().splitlines()[-1]


def test_a_bucket_that_is_not_there_is_said(s3: Bucket, tmp_path: Path) -> None:
    job = doctor("s3://no-such-bucket/run", tmp_path, s3.env, 74)
    assert "bucket no-such-bucket does not exist" in job.said().splitlines()[-1]


def test_an_endpoint_nobody_listens_at_is_said(s3: Bucket, tmp_path: Path) -> None:
    away = {**s3.env, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}
    assert "cannot be reached" in doctor(f"{s3.uri}/run", tmp_path, away, 74).said().splitlines()[-1]


def test_a_folder_passes_and_is_left_as_it_was(tmp_path: Path) -> None:
    for name in ("new/run", "there"):
        (tmp_path / "there").mkdir(exist_ok=True)
        job = doctor(str(tmp_path / name), tmp_path / "home", {})
        assert set(statuses(job).values()) <= {"ok", "warning"} and len(statuses(job)) == 18, job.said()
        assert job.stdout() == ""
        report = report_of(doctor(str(tmp_path / name), tmp_path / "home", {}, 0, "--json"))
        assert report["policy"] is None and {probe["action"] for probe in report["probes"]} == {None}
        assert {path.name for path in tmp_path.iterdir()} == {"there", "home"}
        assert list((tmp_path / "there").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    job = doctor(str(tmp_path / "file" / "run"), tmp_path / "home", {}, 74)
    assert "cannot hold a run: make a file exclusively" in job.said().splitlines()[-1]
    assert "allow s3" not in job.said().splitlines()[-1]


@pytest.mark.parametrize("where", ["http://host/bucket", "s3://", "gs://bucket/run", "ht!tp:::", "file.txt"])
def test_what_is_no_store_is_a_mistake_in_the_command(tmp_path: Path, where: str) -> None:
    (tmp_path / "file.txt").write_text("", encoding="utf-8")
    where = str(tmp_path / where) if where == "file.txt" else where
    job = doctor(where, tmp_path / "home", {}, 78)
    assert where in job.said() and len(job.said().splitlines()) == 1


def test_the_options_of_a_config_are_used_and_their_key_is_in_the_policy(
    s3: Bucket, faulty: FaultyProxy, run: str, tmp_path: Path
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        f"run: {run}\nmodel: {{base: b}}\ndata: {{train: [d.jsonl]}}\nlora: {{}}\n"
        f"storage: {{{s3.name}: {{endpoint: '{faulty.endpoint}', sse: aws:kms, sse_kms_key_id: '1-2'}}}}\n",
        encoding="utf-8",
    )
    report = report_of(
        doctor(str(config), tmp_path / "home", {**s3.env, "AWS_ENDPOINT_URL": "http://unused:1"}, 0, "--json")
    )
    assert report["store"] == run and report["usable"] is True and report["exit_code"] == 0
    (kms,) = [one for one in report["policy"]["Statement"] if one["Sid"] == "Encrypt"]
    assert kms["Resource"] == ["arn:aws:kms:*:*:key/1-2"]
    assert faulty.seen(r"(?s)^PUT .*x-amz-server-side-encryption: aws:kms")


def test_json_is_one_object_on_stdout_and_the_cause_stays_on_stderr(
    faulty: FaultyProxy, env: dict[str, str], run: str, tmp_path: Path
) -> None:
    faulty.faults.append(Fault("status", match=r"^PUT ", status=403, code="AccessDenied"))
    job = doctor(run, tmp_path, env, 74, "--json")
    report = report_of(job)
    missing = [probe for probe in report["probes"] if probe["status"] == "missing"]
    assert [probe["action"] for probe in missing] == ["s3:PutObject"]
    assert report["usable"] is False and report["exit_code"] == 74
    assert job.said() == f"sft-job: {report['reason']}\n"


def used(faulty: FaultyProxy) -> set[str]:
    return {next(action for match, action in ACTIONS if re.search(match, line)) for line in faulty.requests}


def report_of(job: Job) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(job.stdout())
    return made
