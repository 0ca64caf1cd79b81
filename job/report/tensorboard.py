"""TensorBoard files written from events: one per attempt, named so that TensorBoard reads the attempts in order.

An attempt's file begins with a restart mark at its first step: TensorBoard then drops what an earlier attempt logged
from there on, so that a resumed run is one curve.
"""

import html
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job.report.samples import COLUMNS, Row


def event_file_name(attempt: int, nonce: str) -> str:
    """TensorBoard orders the files of a folder by name."""
    return f"events.out.tfevents.{attempt:010d}.{nonce}"


class TensorBoard:
    """A tracker that appends to one event file; needs neither torch nor TensorFlow."""

    name = "tensorboard"

    def __init__(self, folder: Path, attempt: int, nonce: str, resume_step: int | None) -> None:
        # Imported here: half a second that no other verb should pay.
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = event_pb2, summary_pb2
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = RecordWriter((folder / event_file_name(attempt, nonce)).open("wb"))
        self._write(file_version="brain.Event:2")
        self._begins_at(0 if resume_step is None else resume_step + 1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        scalars = [self._summary.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(step=step, summary=self._summary.Summary(value=scalars))

    def samples(self, step: int, rows: list[Row]) -> None:
        from tensorboard.compat.proto import tensor_pb2, tensor_shape_pb2, types_pb2

        text = tensor_pb2.TensorProto(
            dtype=types_pb2.DT_STRING,
            tensor_shape=tensor_shape_pb2.TensorShapeProto(),
            string_val=[markdown_table(rows).encode()],
        )
        metadata = self._summary.SummaryMetadata(
            plugin_data=self._summary.SummaryMetadata.PluginData(plugin_name="text"),
            data_class=self._summary.DATA_CLASS_TENSOR,
        )
        value = self._summary.Summary.Value(tag="samples", tensor=text, metadata=metadata)
        self._write(step=step, summary=self._summary.Summary(value=[value]))

    def restarted(self, step: int) -> None:
        self._begins_at(step + 1 if step else 0)

    def _begins_at(self, step: int) -> None:
        self._write(step=step, session_log=self._event.SessionLog(status=self._event.SessionLog.START))

    def close(self, outcome: str) -> None:
        self._writer.close()

    def _write(self, **fields: Any) -> None:
        self._writer.write(self._event.Event(wall_time=time.time(), **fields).SerializeToString())
        self._writer.flush()  # a TensorBoard on this machine sees it at once


def markdown_table(rows: list[Row]) -> str:
    """Rows as a Markdown table; cells cannot break out of it."""
    heads = [column.replace("_", " ") for column in COLUMNS]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    lines += [f"| {' | '.join(_cell(row[column]) for column in COLUMNS)} |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    return html.escape(str(value), quote=False).replace("|", "&#124;").replace("\n", "<br>")
