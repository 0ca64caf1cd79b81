"""`submit k8s`, by a kubectl that stands in for a cluster: what it is asked is kept, what it answers is a file."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness import ROOT
from tests.k8s.conftest import missing
from tests.manifests import CONFIG

# Answers `get` from numbered files, the last of them again and again; keeps what it is given and every command line.
KUBECTL = """\
#!{python}
import json, sys
from pathlib import Path
here = Path({here!r})
words = [word for word in sys.argv[1:] if not word.startswith(("--context", "--namespace"))]
with (here / "asked").open("a") as asked:
    asked.write(json.dumps(sys.argv[1:]) + "\\n")
if words[0] == "apply":
    (here / "applied.yaml").write_text(given := sys.stdin.read())
    if "team: refused" in given:
        print("serviceaccount/x created")
        sys.exit("exceeded quota\\nno limits")
    print("job.batch/made created")
elif words[0] == "logs":
    since = [word for word in words if word.startswith("--since-time")]
    print("line of" if not since else "what came later of", words[-1])
elif words[0] == "get":
    kind = words[1]
    count = here / f"{{kind}}.count"
    turn = int(count.read_text()) if count.exists() else 0
    count.write_text(str(turn + 1))
    answers = json.loads((here / f"{{kind}}.json").read_text()) if (here / f"{{kind}}.json").exists() else [None]
    answer = answers[min(turn, len(answers) - 1)]
    if answer == "refused":
        sys.exit("error: You must be logged in to the server (Unauthorized)")
    if answer == "chatty":
        sys.exit(print("Notice: use the new cluster\\n{{}}"))
    print(json.dumps(answer) if answer else "")
"""


@dataclass
class Desk:
    path: Path

    def answers(self, kind: str, *answers: Any) -> None:
        (self.path / f"{kind}.json").write_text(json.dumps(answers))

    def submit(self, *words: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "job", "submit", "k8s", str(self.path / "run.yaml"), *words]
        environment = {**os.environ, "PATH": f"{self.path}:{os.environ['PATH']}" if path is None else path}
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=environment, check=False
        )

    @property
    def asked(self) -> list[list[str]]:
        file = self.path / "asked"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def applied(self) -> list[Any]:
        return list(yaml.safe_load_all((self.path / "applied.yaml").read_text()))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    (tmp_path / "run.yaml").write_text(CONFIG)
    (tmp_path / "kubectl").write_text(KUBECTL.format(python=sys.executable, here=str(tmp_path)))
    (tmp_path / "kubectl").chmod(0o755)
    return Desk(tmp_path)


def job(condition: str | None = None) -> dict[str, Any]:
    conditions = [{"type": condition, "status": "True"}] if condition else []
    return {"kind": "Job", "metadata": {"uid": "u1"}, "spec": {}, "status": {"conditions": conditions}}


def pods(*phases: str, code: int | None = None, message: str = "", index: str | None = None) -> dict[str, Any]:
    items = []
    for number, phase in enumerate(phases):
        ended = {"terminated": {"exitCode": code, "message": message, "finishedAt": f"2026-01-0{number + 1}"}}
        items.append(
            {
                "metadata": {
                    "name": f"pod-{number}",
                    "uid": f"uid-{number}",
                    "creationTimestamp": f"2026-01-0{number + 1}",
                    "labels": {"batch.kubernetes.io/job-completion-index": index} if index else {},
                },
                "status": {"phase": phase, "containerStatuses": [{"name": "sft-job", "state": ended if code else {}}]},
            }
        )
    return {"items": items}


def test_what_render_prints_is_applied_and_its_log_is_followed_to_the_end(desk: Desk) -> None:
    desk.answers("job", None, job(), job(), job("Complete"))
    desk.answers("pods", pods("Running"), pods("Succeeded"))
    done = desk.submit("--context", "prod", "--namespace", "team")
    assert done.returncode == 0, done.stderr
    assert [found["kind"] for found in desk.applied] == ["ServiceAccount", "ConfigMap", "Job"]
    assert done.stdout == "line of pod-0\n"
    assert all(words[:2] == ["--context=prod", "--namespace=team"] for words in desk.asked)
    rendered = [sys.executable, "-m", "job", "render", "k8s", str(desk.path / "run.yaml"), "--namespace", "team"]
    printed = subprocess.run(rendered, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT).stdout
    assert list(yaml.safe_load_all(printed)) == desk.applied


def test_a_pods_successor_is_followed_too(desk: Desk) -> None:
    desk.answers("job", None, job(), job(), job("Complete"))
    desk.answers("pods", pods("Running"), pods("Failed", "Running"))
    assert desk.submit().stdout == "line of pod-0\nline of pod-1\n"


def test_a_log_whose_connection_broke_goes_on_from_there(desk: Desk) -> None:
    desk.answers("job", None, job(), job(), job("Complete"))
    desk.answers("pods", pods("Running"), pods("Running"), pods("Succeeded"))
    assert desk.submit().stdout == "line of pod-0\nwhat came later of pod-0\n"


def test_of_several_nodes_the_first_ones_log_is_shown(desk: Desk) -> None:
    desk.answers("job", None, job(), job("Complete"))
    follower, leader = pods("Running", index="1")["items"][0], pods("Pending", "Running", index="0")["items"][1]
    desk.answers("pods", {"items": [follower, leader]})
    assert desk.submit("--nodes", "2").stdout == "line of pod-1\n"


@pytest.mark.parametrize(("code", "message"), [(78, "train.epochs: is wrong"), (71, "out of memory"), (137, "")])
def test_it_leaves_with_the_runs_own_code_and_cause(desk: Desk, code: int, message: str) -> None:
    desk.answers("job", None, job(), job("Failed"))
    desk.answers("pods", pods("Failed", code=code, message=f"sft-job: {message}\n" if message else ""))
    done = desk.submit()
    assert done.returncode == (code if code != 137 else 70)
    assert done.stderr.splitlines()[-1] == f"sft-job: {message or 'failed'}"


def test_a_job_that_is_over_is_made_anew_and_one_that_runs_is_not(desk: Desk) -> None:
    desk.answers("job", job("Failed"), job("Complete"))
    assert desk.submit("--no-follow").returncode == 0
    assert [words[0] for words in desk.asked] == ["get", "delete", "apply"]
    (desk.path / "asked").unlink()
    (desk.path / "job.count").unlink()
    desk.answers("job", job())
    assert desk.submit("--no-follow").returncode == 0
    assert [words[0] for words in desk.asked] == ["get"]


def test_a_dry_run_prints_and_asks_nobody(desk: Desk) -> None:
    done = desk.submit("--dry-run", "--jobset", "--nodes", "2")
    assert [found["kind"] for found in yaml.safe_load_all(done.stdout)] == ["ServiceAccount", "ConfigMap", "JobSet"]
    assert desk.asked == []


def test_without_kubectl_one_line_says_so(desk: Desk, tmp_path: Path) -> None:
    done = desk.submit(path=str(tmp_path / "empty"))
    assert done.returncode == 78
    assert done.stderr == "sft-job: not submitted: there is no kubectl here: install it, or use `sft-job render k8s`\n"


def test_what_the_cluster_refuses_is_told_in_its_own_words(desk: Desk) -> None:
    desk.answers("job", "refused")
    done = desk.submit()
    assert done.returncode == 78
    said = "kubectl get: error: You must be logged in to the server (Unauthorized)"
    assert done.stderr == f"sft-job: not submitted: {said}\n"


def test_what_was_made_before_the_cluster_refused_the_rest_is_told_and_all_that_it_said(desk: Desk) -> None:
    done = desk.submit("--label", "team=refused")
    assert done.returncode == 78
    assert done.stderr == "serviceaccount/x created\nsft-job: not submitted: kubectl apply: exceeded quota; no limits\n"


def test_a_kubectl_that_says_something_else_is_told_in_one_line(desk: Desk) -> None:
    desk.answers("job", "chatty")
    done = desk.submit()
    assert done.returncode == 78
    assert done.stderr == "sft-job: not submitted: kubectl get: no JSON, but 'Notice: use the new cluster'\n"
    assert desk.submit("--context", "").stderr == "sft-job: --context is empty: leave it out for kubectl's own\n"


def test_a_cluster_that_does_not_answer_for_a_moment_is_asked_again(desk: Desk) -> None:
    desk.answers("job", None, "refused", job(), job("Complete"))
    desk.answers("pods", pods("Succeeded"))
    done = desk.submit()
    assert done.returncode == 0 and done.stdout == "line of pod-0\n" and "Unauthorized" in done.stderr
    assert ["get", "pods", "--selector=batch.kubernetes.io/controller-uid=u1"] in [words[:3] for words in desk.asked]


def test_a_job_that_somebody_deleted_is_no_success(desk: Desk) -> None:
    desk.answers("job", None, None)
    done = desk.submit()
    assert done.returncode == 70 and "is gone" in done.stderr


def test_a_queued_job_is_said_to_wait(desk: Desk) -> None:
    waiting = job() | {"spec": {"suspend": True}}
    desk.answers("job", None, waiting, job("Complete"))
    desk.answers("pods", {"items": []})
    done = desk.submit("--queue", "low")
    assert "waiting for the queue to start the job" in done.stderr and done.returncode == 0


def test_why_a_pod_does_not_start_is_said(desk: Desk) -> None:
    pending = pods("Pending")
    held = {"waiting": {"reason": "ImagePullBackOff", "message": "sft-job:0.1.0 not found"}}
    pending["items"][0]["status"]["containerStatuses"] = [{"name": "sft-job", "state": held}]
    desk.answers("job", None, job(), job("Complete"))
    desk.answers("pods", pending)
    assert "waiting for a pod to start: ImagePullBackOff: sft-job:0.1.0 not found\n" in desk.submit().stderr
    unplaced = pods("Pending")
    unplaced["items"][0]["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Insufficient nvidia.com/gpu"}
    ]
    (desk.path / "job.count").unlink()
    desk.answers("pods", unplaced)
    assert "waiting for a pod to start: Unschedulable: Insufficient nvidia.com/gpu\n" in desk.submit().stderr


def test_a_real_kubectl_understands_every_command_that_it_is_given(desk: Desk, tmp_path: Path) -> None:
    """Against a cluster that is not there: it gets as far as asking, which it does not with an option it lacks."""
    if (why := missing()) is not None:
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    desk.answers("job", job("Failed"), job(), job(), job("Complete"))
    desk.answers("pods", pods("Running"), pods("Running"), pods("Succeeded"))
    assert desk.submit("--namespace", "team").returncode == 0
    assert {words[1] for words in desk.asked} == {"get", "delete", "apply", "logs"}
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}
    context = {"name": "c", "context": {"cluster": "c", "user": ""}}
    (tmp_path / "config").write_text(
        json.dumps(
            {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context], "current-context": "c"}
        )
    )
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "config")}
    documents = (tmp_path / "applied.yaml").read_text()
    for words in {words[1]: words for words in desk.asked}.values():
        done = subprocess.run(
            ["kubectl", *words],
            input=documents,
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
            check=False,
        )
        assert "127.0.0.1:9 was refused" in done.stderr or "connect: connection refused" in done.stderr, done.stderr
