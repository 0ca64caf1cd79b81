from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from job.report.samples import with_figures
from job.report.tensorboard import TensorBoard, event_file_name, markdown_table


def _read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()


def _losses(folder: Path) -> dict[int, float]:
    points = _read(folder).Scalars("train/loss")
    assert len({point.step for point in points}) == len(points)
    return {point.step: round(point.value, 3) for point in points}


def _log(tracker: TensorBoard, steps: range, loss: float) -> None:
    for step in steps:
        tracker.log(step, {"train/loss": loss, "train/learning_rate": 1e-4})


def test_a_resumed_attempt_replaces_what_the_one_before_logged_past_it(tmp_path: Path) -> None:
    first = TensorBoard(tmp_path, 9, "ffff", None)
    _log(first, range(1, 8), 2.0)
    second = TensorBoard(tmp_path, 10, "0000", 5)
    _log(second, range(6, 7), 1.0)
    assert _losses(tmp_path) == {1: 2.0, 2: 2.0, 3: 2.0, 4: 2.0, 5: 2.0, 6: 1.0}


def test_a_fresh_start_after_an_attempt_without_commit_replaces_all_of_it(tmp_path: Path) -> None:
    _log(TensorBoard(tmp_path, 1, "aa", None), range(4), 2.0)
    _log(TensorBoard(tmp_path, 2, "bb", None), range(2), 1.0)
    assert _losses(tmp_path) == {0: 1.0, 1: 1.0}


def test_files_sort_by_attempt_whatever_their_nonces() -> None:
    assert event_file_name(9, "zz") < event_file_name(10, "aa") < event_file_name(1_000_000, "00")


def test_samples_are_a_text_table(tmp_path: Path) -> None:
    tracker = TensorBoard(tmp_path, 1, "aa", None)
    tracker.samples(3, with_figures([{"prompt": "微调测试", "generation": "我学会了"}]))
    events = _read(tmp_path)
    assert events.SummaryMetadata("samples").plugin_data.plugin_name == "text"
    (event,) = events.Tensors("samples")
    (text,) = event.tensor_proto.string_val
    assert event.step == 3
    assert text.decode().splitlines()[2] == "| 微调测试 | 我学会了 | 4 | 4 | 0.00 |"


def test_a_generation_cannot_break_out_of_its_cell() -> None:
    table = markdown_table(with_figures([{"prompt": "a|b", "generation": "x\n| y <script>"}]))
    assert len(table.splitlines()) == 3
    assert table.splitlines()[2].startswith("| a&#124;b | x<br>&#124; y &lt;script&gt; |")
