"""Quantities as Kubernetes reads them."""

from decimal import Decimal

import pytest

from job.deploy.quantities import quantity, whole_gib, whole_mib


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8),
        (8, 8),
        ("500m", Decimal("0.5")),
        ("1e3", 1000),
        ("2E2", 200),
        ("1.5Gi", 1610612736),
        ("1k", 1000),
        ("2M", 2000000),
        ("1E", 10**18),
        (".5", Decimal("0.5")),
    ],
)
def test_a_quantity_has_its_value(text: object, value: object) -> None:
    assert quantity(text) == value


@pytest.mark.parametrize("text", ["", "Gi", "1GB", "1 Gi", "0x1", "1e", "1Ki5", "１", "nan", None, True, "1,5"])
def test_what_is_none_is_told_apart(text: object) -> None:
    assert quantity(text) is None


def test_services_with_whole_units_get_whole_units() -> None:
    assert (whole_gib("1.5Gi"), whole_gib("10G"), whole_mib("1.5Gi"), whole_mib("1G")) == (2, 10, 1536, 953)
    for convert in (whole_gib, whole_mib):
        with pytest.raises(ValueError, match="lots"):
            convert("lots")
