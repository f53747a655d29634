"""Bounds by betting: the arithmetic against plain loops, the promise against known means."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventsim.errors import InputError
from eventsim.models.bounds import (
    FRACTIONS,
    Pairs,
    Scale,
    episodes_needed,
    excess,
    is_below,
    log_capital,
    plan,
    stakes,
    upper_bound,
)

SCALE = Scale(0.0, 100.0, 100.0)


def pairs_of(losses: np.ndarray) -> Pairs:
    """Relative losses as returns: teacher 100, random 0."""
    teacher = np.full(len(losses), 100.0)
    return Pairs(teacher - 100.0 * np.asarray(losses), teacher, np.zeros(len(losses)))


@given(
    st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=12),
    st.floats(0.0, 0.5),
)
def test_capital_is_what_a_gambler_would_have(losses: list[float], limit: float) -> None:
    z = excess(pairs_of(np.array(losses)), limit, SCALE)
    fractions, weights = stakes(0.3)
    capital = 0.0
    for fraction, weight in zip(fractions, weights, strict=True):
        mine = weight
        for loss in losses:
            mine *= 1.0 - fraction * (loss - limit) / (1.0 + limit)
        capital += mine
    assert log_capital(z, fractions, weights) == pytest.approx(math.log(capital), abs=1e-9)
    assert weights.sum() == pytest.approx(1.0)


@given(st.floats(-0.5, 1.0), st.floats(0.0, 0.9))
def test_a_stake_is_never_lost_as_a_whole(loss: float, limit: float) -> None:
    z = excess(pairs_of(np.array([loss])), limit, SCALE)
    assert (1.0 - FRACTIONS * z > 0.0).all()


@given(st.lists(st.floats(-0.2, 1.0), min_size=3, max_size=60), st.floats(0.02, 0.9))
def test_the_bound_is_where_the_test_turns(losses: list[float], fraction: float) -> None:
    pairs = pairs_of(np.array(losses))
    upper = upper_bound(pairs, SCALE, fraction=fraction)
    assert pairs.mean_loss <= upper <= SCALE.worst + 1e-12
    if upper < SCALE.worst:
        for m in np.linspace(upper * (1.0 + 1e-6) + 1e-9, SCALE.worst, 7):
            assert is_below(pairs, SCALE, float(m), level=0.95, fraction=fraction)


def test_more_confidence_and_fewer_episodes_make_it_wider(rng: np.random.Generator) -> None:
    losses = rng.normal(0.0, 0.05, 800).clip(-1, 1)
    full = upper_bound(pairs_of(losses), SCALE)
    assert full < upper_bound(pairs_of(losses), SCALE, level=0.99)
    assert full < upper_bound(pairs_of(losses[:200]), SCALE)
    assert full < upper_bound(pairs_of(losses), Scale(-100.0, 100.0, 100.0))


def test_no_loss_at_all_is_bounded_as_by_the_rule_of_three() -> None:
    n = 1000
    upper = upper_bound(pairs_of(np.zeros(n)), SCALE, fraction=0.95)
    # The exact bound for a share of which none was seen, and little more.
    exact = 1.0 - 0.05 ** (1.0 / n)
    assert exact < upper < 1.25 * exact


def test_an_episode_worse_than_the_floor_widens_the_scale() -> None:
    losses = np.zeros(600)
    narrow = upper_bound(pairs_of(losses), SCALE)
    losses[7] = 3.0
    pairs = pairs_of(losses)
    assert SCALE.holding(pairs).worst == pytest.approx(3.0)
    assert narrow < upper_bound(pairs, SCALE) <= 3.0


def test_losses_are_sums_over_sums() -> None:
    pairs = Pairs([9.0, 6.0], [10.0, 8.0], [0.0, 4.0])
    assert pairs.mean_loss == pytest.approx(3.0 / 14.0)
    assert pairs.advantage == pytest.approx(7.0)
    assert pairs.worst_loss == pytest.approx(2.0 / 7.0)
    assert len(pairs) == 2
    assert math.isnan(Pairs([1.0], [1.0], [2.0]).mean_loss)


@pytest.mark.parametrize("sd", [0.0, 0.03, 0.1])
def test_the_episodes_that_were_planned_suffice(sd: float) -> None:
    rng = np.random.default_rng(7)
    needed = episodes_needed(0.02, SCALE, sd=sd)
    assert needed is not None
    planned = plan(pairs_of(rng.normal(0.0, sd, 4000).clip(-1, 1)), SCALE, 0.02)
    assert planned is not None
    assert 0.75 * needed < planned.episodes < 1.35 * needed
    held = [
        upper_bound(
            pairs_of(rng.normal(0.0, sd, planned.episodes).clip(-1, 1)),
            SCALE,
            fraction=planned.fraction,
        )
        <= 0.02
        for _ in range(60)
    ]
    assert np.mean(held) > 0.7


@pytest.mark.parametrize("n", [3, 20, 60])
def test_few_episodes_that_lose_nothing_have_a_plan_that_is_of_use(n: int) -> None:
    needed = episodes_needed(0.01, SCALE)
    planned = plan(pairs_of(np.zeros(n)), SCALE, 0.01)
    assert needed is not None
    assert planned is not None
    assert planned.episodes < 5 * needed
    shown = pairs_of(np.zeros(planned.episodes))
    assert upper_bound(shown, SCALE, fraction=planned.fraction) <= 0.01


def test_nothing_is_planned_for_a_loss_past_the_limit() -> None:
    assert plan(pairs_of(np.full(50, 0.02)), SCALE, 0.01) is None
    assert episodes_needed(0.01, SCALE, mean=0.01) is None
    assert episodes_needed(0.01, SCALE, mean=0.005) > episodes_needed(0.01, SCALE)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Pairs([1.0, math.nan], [1.0, 1.0], [0.0, 0.0]), "'policy'.*NaN"),
        (lambda: Pairs([1.0], [math.inf], [0.0]), "'teacher'.*infinity"),
        (lambda: Pairs([1.0], [1.0, 2.0], [0.0, 0.0]), "differ in number"),
        (lambda: Pairs([], [], []), "one return an episode"),
        (lambda: Scale(1.0, 1.0, 1.0), "not below the ceiling"),
        (lambda: Scale(0.0, 1.0, 0.0), "must be positive"),
        (lambda: upper_bound(pairs_of(np.zeros(3)), SCALE, level=1.0), "between 0 and 1"),
        (lambda: upper_bound(pairs_of(np.zeros(3)), SCALE, fraction=1.0), "between 0 and 1"),
        (lambda: episodes_needed(0.01, SCALE, power=0.0), "between 0 and 1"),
    ],
)
def test_bad_input_is_refused(make, text: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=text):
        make()
