"""Which run is handed over, and what is refused because a container could not have it."""

import re
from pathlib import Path

import pytest

from job.argument import config_of
from job.config import load_config
from job.deploy.handed_over import NAME_LENGTH, handed_over, job_name, refuse_unknown
from job.errors import ConfigError
from tests.manifests import CONFIG, handed


@pytest.fixture
def run_yaml(tmp_path: Path) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG)
    return str(path)


def test_a_config_file_is_handed_over_word_for_word_and_a_folder_by_its_place(run_yaml: str) -> None:
    config = load_config(Path(run_yaml))
    run = handed_over(config, run_yaml, ("train.epochs=1",))
    assert (run.name, run.text, run.grace_seconds, run.on_cpu) == ("my-run", CONFIG, 120, False)
    assert run.words("/there/run.yaml") == ["run", "/there/run.yaml", "--set", "train.epochs=1"]
    folder = handed_over(config, "s3://my-bucket/runs/my-run", ())
    assert folder.text is None and folder.words("/there/run.yaml") == ["run", "s3://my-bucket/runs/my-run"]


@pytest.mark.parametrize("place", ["/data/runs/a", "runs/a", "~/a"])
def test_a_run_folder_on_a_disk_is_refused_but_below_what_is_mounted(place: str, run_yaml: str) -> None:
    config = load_config(Path(run_yaml), [f"run={place}"])
    with pytest.raises(ConfigError, match=r"give s3://bucket/prefix$"):
        handed_over(config, run_yaml, ())
    if place.startswith("/"):
        assert handed_over(config, run_yaml, (), shared=("/data",)).name == "a"
        with pytest.raises(ConfigError):
            handed_over(config, run_yaml, (), shared=("/dat",))


def test_a_variable_of_the_config_is_one_that_the_container_has(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("# ${OLD}\n" + CONFIG.replace("s3://my-bucket/runs/my-run", "s3://${BUCKET}/runs/my-run"))
    config = config_of(str(path), (), {"BUCKET": "b", "N": "2"})
    assert config.run == "s3://b/runs/my-run"
    with pytest.raises(ConfigError, match=r"run.yaml names \$\{BUCKET\}.* --env BUCKET=VALUE$"):
        refuse_unknown(str(path), (), ("N",))
    with pytest.raises(ConfigError, match=r"--set train.epochs=\$\{N\} names \$\{N\}"):
        refuse_unknown(str(path), ("train.epochs=${N}",), ("BUCKET",))
    refuse_unknown(str(path), ("train.epochs=${N}", "run=${HOME}"), ("BUCKET", "N"))
    refuse_unknown(str(path), (), None)


def test_a_jobs_name_leaves_room_for_what_controllers_add() -> None:
    for name in ("a" * 200, "-" * 200, "微" * 200, "a-" * 100, "9" * 200):
        found = job_name(handed(name))
        assert len(found) <= NAME_LENGTH and re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", found)
        assert "--" not in found
