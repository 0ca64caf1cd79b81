"""One checkpoint for every strategy: a run goes on under another one, or on another number of ranks, as if nothing
had happened. All pairs: `python -m tests.matrix`."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.matrix.laboratory import WAYS, Case, Laboratory, Way, assert_same_bits, compare, with_fields
from tests.matrix.pairs import CASES, FULL, LORA, pairwise

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ALONE = Way("single", 1)


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    made = Laboratory(tmp_path_factory.mktemp("matrix"))
    yield made
    made.close()


def test_sixteen_pairs_hold_every_pair_of_strategies_and_every_pair_of_world_sizes() -> None:
    pairs = pairwise()
    assert {before for before, _ in pairs} == {after for _, after in pairs} == set(WAYS)
    assert len({(before.strategy, after.strategy) for before, after in pairs}) == 16
    assert len({(before.ranks, after.ranks) for before, after in pairs}) == 16


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_way_trains_the_same_rows_to_the_same_losses(laboratory: Laboratory, way: Way, case: Case) -> None:
    alone, found = laboratory.whole(case, ALONE), laboratory.whole(case, way)
    assert found.rows == alone.rows
    assert found.losses == pytest.approx(alone.losses, rel=case.tolerance)
    assert found.evaluations == pytest.approx(alone.evaluations, rel=case.tolerance)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize(("before", "after"), pairwise(), ids=lambda way: str(way))
def test_a_run_goes_on_another_way(laboratory: Laboratory, before: Way, after: Way, case: Case) -> None:
    compare(case, laboratory.whole(case, before), laboratory.resumed(case, before, after), f"{before} to {after}")


@pytest.mark.parametrize(
    ("way", "case"),
    [(way, CASES[at % 2]) for at, way in enumerate(WAYS)] + [(ALONE, LORA), (ALONE, FULL)],
    ids=lambda each: each.name if isinstance(each, Case) else str(each),
)
def test_a_run_that_goes_on_the_same_way_has_the_same_bits(laboratory: Laboratory, way: Way, case: Case) -> None:
    assert_same_bits(laboratory.whole(case, way), laboratory.resumed(case, way, way), f"{way} to {way}")


@pytest.mark.parametrize("way", [Way("ddp", 2), Way("zero2", 2), Way("zero3", 2)], ids=str)
def test_dropout_is_repeated_where_the_layout_is(laboratory: Laboratory, way: Way) -> None:
    case = with_fields(LORA, "dropout", lora={"r": 4, "alpha": 8, "dropout": 0.1})
    whole = laboratory.whole(case, way)
    assert whole.losses != laboratory.whole(LORA, way).losses
    assert_same_bits(whole, laboratory.resumed(case, way, way), f"{way} to {way}")


@pytest.mark.parametrize(
    ("before", "after"),
    [(ALONE, Way("zero3", 2)), (Way("zero3", 2), Way("zero1", 2)), (Way("zero2", 2), ALONE)],
    ids=str,
)
def test_dora_and_whole_modules_beside_it_go_along(laboratory: Laboratory, before: Way, after: Way) -> None:
    lora = {"r": 4, "alpha": 8, "dropout": 0.0, "use_dora": True, "modules_to_save": ["embed_tokens"]}
    case = with_fields(LORA, "dora", lora=lora)
    whole = laboratory.whole(case, before)
    assert any("embed_tokens" in name for name in whole.tensors) and any("magnitude" in name for name in whole.tensors)
    compare(case, whole, laboratory.resumed(case, before, after), f"{before} to {after}")


@pytest.mark.parametrize(("before", "after"), [(ALONE, ALONE), (ALONE, Way("ddp", 2)), (Way("ddp", 3), ALONE)], ids=str)
def test_eight_bit_state_is_whole_and_goes_along(laboratory: Laboratory, before: Way, after: Way) -> None:
    pytest.importorskip("bitsandbytes")
    case = with_fields(FULL, "8bit", train__optim="adamw_8bit")
    whole, resumed = laboratory.whole(case, before), laboratory.resumed(case, before, after)
    compare(case, whole, resumed, f"{before} to {after}")
    if before == after:
        assert_same_bits(whole, resumed, f"{before} to {after}")


BF16_TOLERANCE = 2e-2


@pytest.mark.parametrize("way", [Way("zero1", 2), Way("zero2", 2), Way("zero3", 2)], ids=str)
def test_in_bf16_the_fp32_copies_go_along(laboratory: Laboratory, way: Way) -> None:
    case = with_fields(FULL, "bf16", model__precision="bf16")
    whole, alone = laboratory.whole(case, way), laboratory.whole(case, ALONE)
    assert whole.losses == pytest.approx(alone.losses, rel=BF16_TOLERANCE)
    assert_same_bits(whole, laboratory.resumed(case, way, way), f"{way} to {way}")
    resumed = laboratory.resumed(case, way, ALONE)
    assert resumed.losses == pytest.approx({step: whole.losses[step] for step in resumed.losses}, rel=BF16_TOLERANCE)


@pytest.mark.parametrize("way", [Way("zero2", 2), Way("zero3", 2)], ids=str)
def test_in_bf16_whole_modules_beside_an_adapter_are_trained(laboratory: Laboratory, way: Way) -> None:
    lora = {"r": 4, "alpha": 8, "dropout": 0.0, "modules_to_save": ["embed_tokens"]}
    case = with_fields(LORA, "bf16-whole", lora=lora, model__precision="bf16")
    whole, alone = laboratory.whole(case, way), laboratory.whole(case, ALONE)
    assert whole.losses == pytest.approx(alone.losses, rel=BF16_TOLERANCE)
    assert_same_bits(whole, laboratory.resumed(case, way, way), f"{way} to {way}")


@pytest.mark.parametrize(("way", "offload"), [(Way("zero2", 2), "optimizer"), (Way("zero3", 2), "all")], ids=str)
def test_offloading_changes_no_number(laboratory: Laboratory, way: Way, offload: str) -> None:
    case = with_fields(LORA, f"offload-{offload}", parallel__offload=offload)
    compare(case, laboratory.whole(LORA, way), laboratory.resumed(case, way, way), f"{way}, {offload} offloaded")


@pytest.mark.parametrize("way", [ALONE, Way("ddp", 2), Way("zero1", 2), Way("zero3", 2)], ids=str)
def test_the_trial_of_the_worst_micro_batch_leaves_no_trace(laboratory: Laboratory, way: Way) -> None:
    limited = replace(LORA, name="limited", memory_bytes=1 << 40)
    whole, tried = laboratory.whole(LORA, way), laboratory.whole(limited, way)
    assert (len(whole.tried), len(tried.tried)) == (0, 1)
    assert_same_bits(tried, replace(whole, losses=tried.losses), f"{way}, tried")
    assert tried.losses == whole.losses
    assert_same_bits(whole, laboratory.resumed(limited, way, way), f"{way} to {way}, tried")


@pytest.mark.parametrize("ranks", [2, 4])
def test_under_zero3_a_rank_holds_its_part_of_the_model(laboratory: Laboratory, ranks: int) -> None:
    assert laboratory.whole(FULL, Way("zero2", ranks)).held == 1
    assert laboratory.whole(FULL, Way("zero3", ranks)).held == pytest.approx(1 / ranks, rel=0.02)


@pytest.mark.parametrize("base", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize(("before", "after"), [(ALONE, Way("zero3", 2)), (Way("zero3", 3), Way("zero1", 2))], ids=str)
def test_added_tokens_have_the_same_embeddings(laboratory: Laboratory, before: Way, after: Way, base: Case) -> None:
    case = with_fields(base, f"tokens-{base.name}", model__add_tokens=["<one>", "<two>"])
    whole, alone = laboratory.whole(case, before), laboratory.whole(case, ALONE)
    assert whole.losses == pytest.approx(alone.losses, rel=case.tolerance)
    compare(case, whole, laboratory.resumed(case, before, after), f"{before} to {after}")


@pytest.mark.parametrize("way", [Way("zero2", 2), Way("zero3", 2)], ids=str)
def test_the_best_weights_become_the_result(laboratory: Laboratory, way: Way) -> None:
    """Of two evaluations, after the fifth and the ninth step, the first counts as better here."""
    best = {"metric": "eval_loss", "mode": "max", "final": "best"}
    case = with_fields(LORA, "best", best=best)
    found, last, alone = laboratory.whole(case, way), laboratory.whole(LORA, way), laboratory.whole(case, ALONE)
    assert any(found.tensors[name].tobytes() != tensor.tobytes() for name, tensor in last.tensors.items())
    for name, tensor in alone.tensors.items():
        assert found.tensors[name] == pytest.approx(tensor, rel=1e-3, abs=1e-6), name
