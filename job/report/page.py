"""What `inspect` found as one HTML page that needs nothing else: it can be sent as it is, and opened anywhere.

Every text in it comes from data that may hold anything: the template escapes all of them, and the page allows itself
neither scripts nor requests.
"""

from collections.abc import Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined

from job import __version__
from job.inspection import Example, Inspection, Piece
from job.report.facts import batch_title, example_title, facts, is_target, micro_batches
from job.report.histogram import percent
from job.report.visible import LEGEND, alone, folded, stretches, visible

TEMPLATE = "page.html.jinja"
WHOLE = (10**9, 1)
LONG, SHORT = (1500, 500), (200, 50)  # tokens that are shown of a stretch in other rows, and of one that is learnt


def page(found: Inspection) -> str:
    """The whole page, as UTF-8 is to hold it."""
    source = resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    template = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(source)
    batch = found["batch"]
    most = max(rows for _, _, rows in found["lengths"]["bins"])
    return template.render(
        found=found,
        version=__version__,
        legend=LEGEND,
        facts=facts(found),
        bins=[
            {"name": f"{least:,}" if least == greatest else f"{least:,}-{greatest:,}", "rows": rows,
             "width": 100 * rows / most, "share": percent(rows / found["summary"]["rows"])}
            for least, greatest, rows in found["lengths"]["bins"]
        ],
        example=_example(found["example"], WHOLE),
        tokens=list(_tokens(found["example"]["pieces"])),
        more=[_example(one, LONG) for one in found["more"] if one["row"] != found["example"]["row"]],
        batch_title=batch and batch_title(batch),
        micro_batches=batch and micro_batches(batch),
        visible=visible,
    ) + "\n"  # fmt: skip


def _example(example: Example, limits: tuple[int, int]) -> dict[str, Any]:
    return {
        "title": example_title(example),
        "parts": _parts(example["pieces"], limits),
        "learns": [
            {
                "place": f"{lesson['first']}-{lesson['last']}",
                "parts": _parts(
                    [piece for piece in example["pieces"] if lesson["first"] <= piece["first"] <= lesson["last"]], SHORT
                ),
            }
            for lesson in example["learns"]
        ],
    }


def _parts(pieces: Sequence[Piece], limits: tuple[int, int]) -> list[Any]:
    """Stretches, and numbers of tokens that are left out."""
    parts: list[Any] = []
    for part in folded(pieces, *limits):
        parts += [part] if isinstance(part, int) else list(stretches(part))
    return parts


def _tokens(pieces: Sequence[Piece]) -> Any:
    for piece in pieces:
        several = len(piece["ids"])
        for place, (token, label) in enumerate(zip(piece["ids"], piece["labels"], strict=True)):
            yield {
                "position": piece["first"] + place,
                "id": token,
                "text": alone(piece["text"]),
                "part": f"{place + 1} of {several}" if several > 1 else "",
                "trained": is_target(piece["first"] + place, label),
                "kind": piece["kind"],
                "label": label,
            }
