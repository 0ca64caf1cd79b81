"""k8s/ as kubectl builds it: the base is what `render` prints, and every component and overlay is without a fault."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from job.deploy.k8s_objects import jobs
from job.deploy.k8s_rules import faults
from job.deploy.manifest import documents
from tests.harness import ROOT
from tests.k8s.checking import check
from tests.k8s.conftest import Built
from tests.manifests import container, handed, pod, rendered, the

Kustomize = Callable[[Path], Built]
COMPONENTS = sorted(path.name for path in (ROOT / "k8s/components").iterdir())
OVERLAYS = sorted(path.name for path in (ROOT / "k8s/overlays").iterdir())
OF_A_JOB = "multi-node"  # a JobSet is for several nodes by itself
UNRESTRICTED = {"host-cache": ["volume cache is hostPath"]}  # what the component says of itself


def edited(shipped: Path, overlay: str, **edits: Any) -> Path:
    """The overlay's folder, with these fields of its kustomization instead of what it has."""
    file = shipped / "overlays" / overlay / "kustomization.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text(encoding="utf-8")) | edits))
    return file.parent


def paths(*components: str) -> list[str]:
    return [f"../../components/{name}" for name in components]


def built_with(kustomize: Kustomize, shipped: Path, *components: str, suffix: str = "-x") -> Built:
    return kustomize(edited(shipped, "one-node", components=paths(*components), nameSuffix=suffix))


def unsuffixed(objects: Built) -> list[Any]:
    """Without what names end with: a suffix of kustomize's, a digest of ours. In the order of their kinds."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [strip(inner) for inner in value]
        return re.sub(r"^my-run-[a-z0-9-]+$", "my-run", value) if isinstance(value, str) else value

    return sorted((strip(found) for found in objects), key=lambda found: str(found["kind"]))


def printed(*words: str) -> Built:
    command = [sys.executable, "-m", "job", "render", "k8s", str(ROOT / "k8s/base/run.yaml"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, cwd=ROOT)
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("folder", ["base", "overlays/one-node"])
def test_the_base_as_it_lies_there_is_what_render_prints(folder: str, kustomize: Kustomize) -> None:
    assert unsuffixed(kustomize(ROOT / "k8s" / folder)) == unsuffixed(printed())


def test_the_files_of_the_base_and_of_the_jobset_are_what_render_prints() -> None:
    """Without kubectl as well."""
    for words, files in {
        "": ("base/service-account.yaml", "base/job.yaml"),
        "--nodes 2": ("components/multi-node/service.yaml",),
        "--nodes 2 --jobset": ("overlays/jobset/jobset.yaml",),
    }.items():
        by_kind = {found["kind"]: found for found in unsuffixed(printed(*words.split()))}
        for file in files:
            found = yaml.safe_load((ROOT / "k8s" / file).read_text(encoding="utf-8"))
            assert found == by_kind[found["kind"]], file


SAME = {
    "multi-node": "--nodes 2",
    "kueue": "--queue my-queue",
    "node-cache": "--cache-size 500Gi --storage-class local-nvme",
    "identity-aws": "--service-account-annotation eks.amazonaws.com/role-arn=arn:aws:iam::111122223333:role/my-run",
    "secret": "--secret s3-credentials",
    "s3-endpoint": "--env AWS_ENDPOINT_URL=https://s3.example.com --env AWS_DEFAULT_REGION=us-east-1",
}


@pytest.mark.parametrize("component", SAME)
def test_a_component_is_an_option_of_render(component: str, kustomize: Kustomize, shipped: Path) -> None:
    assert unsuffixed(built_with(kustomize, shipped, component)) == unsuffixed(printed(*SAME[component].split()))


def test_the_jobset_overlay_is_what_render_prints(kustomize: Kustomize) -> None:
    assert unsuffixed(kustomize(ROOT / "k8s/overlays/jobset")) == unsuffixed(printed("--jobset", "--nodes", "2"))


@pytest.mark.parametrize("component", COMPONENTS)
def test_each_component_is_valid_and_without_a_fault(component: str, kustomize: Kustomize, shipped: Path) -> None:
    objects = built_with(kustomize, shipped, component)
    check(objects)
    said = faults(objects)
    assert len(said) == len(allowed := UNRESTRICTED.get(component, [])), said
    assert all(any(text in fault for fault in said) for text in allowed)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_overlay_is_valid_and_without_a_fault(overlay: str, kustomize: Kustomize) -> None:
    objects = kustomize(ROOT / "k8s/overlays" / overlay)
    check(objects)
    assert faults(objects) == []


@pytest.mark.parametrize("overlay", ["one-node", "jobset"])
def test_all_components_together_are_without_a_fault(overlay: str, kustomize: Kustomize, shipped: Path) -> None:
    left_out = {
        "host-cache",
        "identity-google",
        *([OF_A_JOB] if overlay == "jobset" else []),
    }  # two annotate one account
    others = [name for name in COMPONENTS if name not in left_out]
    objects = kustomize(edited(shipped, overlay, components=paths(*others)))
    check(objects)
    assert faults(objects) == []


def leaves(value: Any, path: str = "") -> set[tuple[str, str]]:
    """What stands where; of a list, under its items' names."""
    if isinstance(value, dict):
        return {leaf for key, inner in value.items() for leaf in leaves(inner, f"{path}/{key}")}
    if isinstance(value, list):
        keyed = ((one.get("name", i) if isinstance(one, dict) else i, one) for i, one in enumerate(value))
        return {leaf for key, inner in keyed for leaf in leaves(inner, f"{path}[{key}]")}
    return {(path, repr(value))}


@pytest.mark.parametrize("component", [name for name in COMPONENTS if name != OF_A_JOB])
def test_a_component_changes_a_jobset_as_it_changes_a_job(component: str, kustomize: Kustomize, shipped: Path) -> None:
    """A patch whose target is not there is passed over in silence."""
    made = []
    for overlay in ("one-node", "jobset"):
        folder = edited(shipped, overlay, nameSuffix="-x")
        before, after = kustomize(folder), kustomize(edited(shipped, overlay, components=paths(component)))
        assert before != after, overlay
        (was,), (became,) = ([leaves(job.pod) for job in jobs(objects)] for objects in (before, after))
        made.append((became - was, was - became))
    assert made[0] == made[1]


def names(objects: Built) -> set[str]:
    return {found["metadata"]["name"] for found in objects}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_edits_of_the_config_the_image_and_the_suffix_reach_all_of_an_overlay(
    overlay: str, kustomize: Kustomize, shipped: Path
) -> None:
    """With another suffix nothing is shared with the objects of before, which may be a run's that goes on."""
    before = kustomize(shipped / "overlays" / overlay)
    digest = "sha256:" + "a" * 64
    with (shipped / "base/run.yaml").open("a") as file:
        file.write("max_time: 1h\n")
    image = {"name": "sft-job", "newName": "r.example/sft-job", "digest": digest}
    objects = kustomize(edited(shipped, overlay, nameSuffix="-again-2", images=[image]))
    text = documents(objects)
    assert f"r.example/sft-job@{digest}" in text and "sft-job:0" not in text
    assert the(objects, "ConfigMap")["data"]["run.yaml"].endswith("max_time: 1h\n")
    assert all(name.startswith("my-run-again-2") for name in names(objects))
    assert not any(name in text for name in names(before))
    assert faults(objects) == []  # whatever a pod names is there


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_overlay_shows_where_its_image_and_its_suffix_are_set(overlay: str) -> None:
    """And the base sets neither: what it sets does not reach the objects that an overlay adds."""
    base, own = (
        yaml.safe_load((ROOT / "k8s" / folder / "kustomization.yaml").read_text(encoding="utf-8"))
        for folder in ("base", f"overlays/{overlay}")
    )
    assert {"nameSuffix", "images"} <= own.keys() and not {"nameSuffix", "images"} & base.keys()


def test_each_overlay_has_names_of_its_own(kustomize: Kustomize) -> None:
    found = [name for overlay in OVERLAYS for name in names(kustomize(ROOT / "k8s/overlays" / overlay))]
    assert len(found) == len(set(found))


def test_a_suffix_reaches_every_place_where_a_name_stands(kustomize: Kustomize, shipped: Path) -> None:
    objects = built_with(kustomize, shipped, "multi-node", "spot", suffix="-second")
    job, service, spec = the(objects, "Job"), the(objects, "Service"), pod(objects)
    assert job["metadata"]["name"] == "my-run-second"
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
    told = {variable["name"]: variable.get("value") for variable in container(objects)["env"]}
    assert spec["subdomain"] == service["metadata"]["name"] == told["POD_SUBDOMAIN"]
    assert spec["serviceAccountName"] == the(objects, "ServiceAccount")["metadata"]["name"]


def test_the_priority_is_one_of_the_cluster_whatever_the_run_is_called(kustomize: Kustomize, shipped: Path) -> None:
    spot = shipped / "components/spot"
    (spot / "priority-class.yaml").rename(shipped / "priority-class.yaml")
    objects = built_with(kustomize, shipped, "spot", suffix="-second")
    assert {found["kind"] for found in objects} == {"ServiceAccount", "ConfigMap", "Job"}
    of_cluster = yaml.safe_load((shipped / "priority-class.yaml").read_text(encoding="utf-8"))
    check([of_cluster])
    assert pod(objects)["priorityClassName"] == of_cluster["metadata"]["name"]


def test_another_config_is_another_config_map_that_the_job_names(kustomize: Kustomize, shipped: Path) -> None:
    before = the(kustomize(shipped / "base"), "ConfigMap")["metadata"]["name"]
    with (shipped / "base/run.yaml").open("a") as file:
        file.write("max_time: 1h\n")
    objects = kustomize(shipped / "base")
    after = the(objects, "ConfigMap")["metadata"]["name"]
    assert before != after and pod(objects)["volumes"][0]["configMap"]["name"] == after


def test_kubectl_reads_what_is_rendered_as_it_was_meant(kustomize: Kustomize, tmp_path: Path) -> None:
    """A YAML reader of its own: y, no, 2 and 1e3 have to stay text in it."""
    values = ["y", "n", "no", "on", "2", "1e3", "0x1F", "1_000", "~", "null", "true", "", "1:30", ".5", "a: b", "#"]
    hostile = {f"V{index}": value for index, value in enumerate([*values, "微调", "🙂", "a\nb", '"', "'", "\t", "\\"])}
    objects = rendered(handed("no"), environment={"N": "y", "y": "N", **hostile}, labels={"y": "no"}, nodes=2)
    (tmp_path / "all.yaml").write_text(documents(objects))
    (tmp_path / "kustomization.yaml").write_text("resources: [all.yaml]\n")
    order = sorted(objects, key=lambda found: str(found["kind"]))
    assert sorted(kustomize(tmp_path), key=lambda found: str(found["kind"])) == order


def test_no_credential_stands_in_anything_that_is_shipped() -> None:
    """By the rule, and a planted one is found by it."""
    from job.deploy.credentials import faults_of_text

    files = list((ROOT / "k8s").rglob("*.yaml"))
    assert len(files) > 10
    for path in files:
        text = re.sub(r"(?m)^#.*$", "", path.read_text(encoding="utf-8"))
        assert list(faults_of_text(text)) == [], path
    assert list(faults_of_text("value: {name: X, secret_key: planted}"))
