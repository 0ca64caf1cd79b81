"""What is read from a run folder is checked."""

import math

import pytest

from job.errors import DataError
from job.storage.records import AttemptRecord, Commit, EndRecord, FileRecord


def test_a_record_that_is_damaged_is_said_in_one_line() -> None:
    for data in (b"", b"{", b"[]", b'{"attempt": "x"}', b"\xff\xfe"):
        with pytest.raises(DataError, match=r"some/key is damaged: \w") as caught:
            AttemptRecord.parse(data, "some/key")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../../b", "", "."])
def test_a_record_cannot_name_a_file_outside_its_folder(name: str) -> None:
    with pytest.raises(ValueError, match="stays below"):
        FileRecord(name=name, size=1, sha256="")


def test_an_evaluation_that_is_no_number_comes_back_as_it_was() -> None:
    evaluations = [{"step": 1, "eval_loss": float("inf")}, {"step": 2, "eval_loss": float("nan")}]
    record = Commit(
        attempt=1,
        nonce="a",
        step=2,
        folder="f",
        files=[],
        parent=None,
        run_digest="",
        prepared="",
        evaluations=evaluations,
        world_size=1,
        strategy="ddp",
        versions={},
        created="",
    )
    first, second = Commit.parse(record.dump(), "").evaluations
    assert first == evaluations[0] and math.isnan(second["eval_loss"])


def test_a_newer_versions_fields_are_kept_out_of_the_way() -> None:
    data = b'{"code": 0, "reason": "", "step": 3, "created": "", "colour": "blue"}'
    assert EndRecord.parse(data, "").step == 3
