"""The choice among candidates and the promise, on losses that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from eventsim.errors import InputError
from eventsim.models.bounds import Pairs, Scale
from eventsim.models.tune import Promise, Trial, choose, describe_need, promise
from tests.promise import LIMIT, PAST, REQUIRED, WORLDS, procedure

SCALE = Scale(0.0, 100.0, 100.0)
SEEDS = range(1000, 3000)


def player(*means: float, sd: float = 0.03, asked: list[tuple[int, range]] | None = None):  # type: ignore[no-untyped-def]
    """Candidates of given mean losses; a seed gives the same episode whenever it is asked for."""

    def play(k: int, seeds: range) -> Pairs:
        if asked is not None:
            asked.append((k, seeds))
        noise = np.array([np.random.default_rng([k, s]).normal(0.0, sd) for s in seeds])
        teacher = np.full(len(seeds), 100.0)
        losses = np.clip(means[k] + noise, -1.0, 1.0)
        return Pairs(teacher - 100.0 * losses, teacher, np.zeros(len(seeds)))

    return play


def test_takes_the_cheapest_that_holds_and_tries_no_other() -> None:
    asked: list[tuple[int, range]] = []
    choice = choose(4, player(0.3, 0.05, 0.0, 0.0, asked=asked), SEEDS, SCALE, 0.02)
    assert choice.index == 2
    assert choice.holds
    assert [t.verdict for t in choice.trials] == ["loses", "loses", "holds"]
    assert {k for k, _ in asked} == {0, 1, 2}
    # The hopeless are given up early.
    assert choice.trials[0].episodes == 20
    assert choice.trials[2].upper <= 0.02
    assert choice.plan is not None


def test_without_a_candidate_that_holds_the_best_is_taken() -> None:
    choice = choose(3, player(0.3, 0.1, 0.2), SEEDS, SCALE, 0.02)
    assert not choice.holds
    assert choice.index == 1
    assert choice.plan is None


def test_a_candidate_at_the_limit_does_not_take_the_time_of_all() -> None:
    choice = choose(2, player(0.0195, 0.0, sd=0.1), SEEDS, SCALE, 0.02)
    assert [t.verdict for t in choice.trials] == ["undecided", "holds"]
    assert choice.trials[0].episodes < 500
    # Where none is shown to hold, one that may is taken before one that does not.
    choice = choose(2, player(0.015, 0.3, sd=0.1), SEEDS, SCALE, 0.02, patience=100)
    assert [t.verdict for t in choice.trials] == ["undecided", "loses"]
    assert choice.index == 0


def test_what_is_known_of_a_candidate_outweighs_bad_luck_but_does_not_decide() -> None:
    honest = player(0.0, 0.0, sd=0.1)

    def play(k: int, seeds: range) -> Pairs:
        pairs = honest(k, seeds)
        # The first episodes of candidate 0 go badly.
        unlucky = (np.arange(len(seeds)) < 40) & (k == 0)
        return Pairs(pairs.policy - 20.0 * unlucky, pairs.teacher, pairs.random)

    def known(k: int) -> Pairs | None:
        return honest(0, range(20_000, 20_400)) if k == 0 else None

    plain = choose(2, play, SEEDS, SCALE, 0.02)
    assert plain.trials[0].verdict == "loses"
    assert plain.index == 1
    helped = choose(2, play, SEEDS, SCALE, 0.02, known=known)
    assert helped.index == 0
    assert helped.holds
    # It is no part of the test: the episodes that show it are those of the seeds alone.
    alone = play(0, SEEDS[: helped.trials[0].episodes])
    assert helped.trials[0].mean == alone.mean_loss
    # Nor does it keep up for ever what loses.
    lost = choose(1, player(0.1, sd=0.05), SEEDS, SCALE, 0.02, patience=100, known=known)
    assert not lost.holds
    assert lost.trials[0].episodes < 300


def test_time_that_is_left_goes_to_those_that_could_not_be_told() -> None:
    # None can be told within 50 episodes; the first would take all seeds.
    play = player(0.0195, 0.0, 0.0, 0.3, sd=0.1)
    looks: list[tuple[int, str]] = []
    choice = choose(
        4, play, SEEDS, SCALE, 0.02, patience=50,
        look=lambda k, trial: looks.append((k, trial.verdict)),
    )  # fmt: skip
    assert choice.holds
    assert choice.index == 1
    assert [t.verdict for t in choice.trials] == ["undecided", "holds", "undecided", "loses"]
    verdicts = [(k, verdict) for k, verdict in looks if verdict != "running"]
    assert verdicts == [
        (0, "undecided"), (1, "undecided"), (2, "undecided"), (3, "loses"), (1, "holds"),
    ]  # fmt: skip
    # Where no time is left, they stay so.
    over = choose(
        3, play, SEEDS, SCALE, 0.02, patience=50, out_of_time=lambda: len(looks) > 2,
        look=lambda k, trial: looks.append((k, trial.verdict)),
    )  # fmt: skip
    assert over.out_of_time


def test_time_that_is_left_goes_to_what_is_cheaper_than_one_that_holds() -> None:
    # The second never differs from the teacher; the first takes more than the patience.
    play = player(0.003, 0.0, sd=0.1)

    def sure(k: int, seeds: range) -> Pairs:
        pairs = play(k, seeds)
        return pairs if k == 0 else Pairs(pairs.teacher, pairs.teacher, pairs.random)

    looks: list[tuple[int, str]] = []

    def look(k: int, trial: Trial) -> None:
        if trial.verdict != "running":
            looks.append((k, trial.verdict))

    choice = choose(2, sure, SEEDS, SCALE, 0.02, patience=350, look=look)
    assert looks == [(0, "undecided"), (1, "holds"), (0, "holds")]
    assert choice.index == 0
    assert choice.holds
    # Without the time it is the one that holds, and of the other all is known that was.
    over = choose(
        2, sure, SEEDS, SCALE, 0.02, patience=350, look=look,
        out_of_time=lambda: len(looks) > 4,
    )  # fmt: skip
    assert over.index == 1
    assert over.holds
    assert over.trials[0].episodes == 125
    # What a promise takes is not spent; what is left of much is.
    few = choose(2, sure, SEEDS, SCALE, 0.02, patience=350, affordable=lambda: 100.0)
    many = choose(2, sure, SEEDS, SCALE, 0.02, patience=350, affordable=lambda: math.inf)
    assert few.trials[0].episodes == over.trials[0].episodes
    assert (few.index, many.index) == (1, 0)


def test_where_time_ends_first_what_a_promise_takes_least_for_is_taken() -> None:
    looks: list[int] = []
    choice = choose(
        2, player(0.012, 0.0), SEEDS, SCALE, 0.02, patience=400,
        out_of_time=lambda: sum(looks) >= 2, look=lambda k, trial: looks.append(k),
    )  # fmt: skip
    first, second = choice.trials
    assert (first.verdict, second.verdict) == ("undecided", "undecided")
    # The bound of the second is wider by fewer episodes alone.
    assert second.episodes < first.episodes
    assert second.mean < first.mean < first.upper < second.upper
    assert choice.index == 1


def test_where_time_ends_the_cheapest_is_taken_whose_promise_can_be_afforded() -> None:
    def chosen(episodes: float) -> int:
        looks: list[int] = []
        return choose(
            2, player(0.012, 0.0), SEEDS, SCALE, 0.02, patience=400,
            out_of_time=lambda: sum(looks) >= 2, look=lambda k, trial: looks.append(k),
            affordable=lambda: episodes,
        ).index  # fmt: skip

    assert chosen(math.inf) == 0
    assert chosen(10.0) == chosen(math.nan) == 1


def test_each_trial_is_held_to_a_share_of_the_error() -> None:
    alone = choose(1, player(0.0), SEEDS, SCALE, 0.02).trials[0]
    of_many = choose(16, player(*[0.0] * 16), SEEDS, SCALE, 0.02).trials[0]
    assert of_many.verdict == "holds"
    assert of_many.episodes > alone.episodes


def test_time_that_is_over_ends_the_trials() -> None:
    played: list[int] = []

    def late() -> bool:
        return len(played) >= 3

    choice = choose(
        3, player(0.0, 0.0, 0.0), SEEDS, SCALE, 0.001,
        out_of_time=late, look=lambda k, trial: played.append(k),
    )  # fmt: skip
    assert choice.out_of_time
    assert not choice.holds
    assert [t.verdict for t in choice.trials] == ["undecided"]


def test_looks_tell_of_every_batch() -> None:
    looks: list[Trial] = []
    choice = choose(1, player(0.0), SEEDS, SCALE, 0.02, look=lambda k, trial: looks.append(trial))
    assert [t.verdict for t in looks[:-1]] == ["running"] * (len(looks) - 1)
    assert looks[-1] == choice.trials[0]
    assert np.all(np.diff([t.episodes for t in looks]) > 0)


def promised(mean: float, limit: float = 0.02, **options: object) -> Promise:
    play = player(mean)
    choice = choose(1, play, SEEDS, SCALE, limit)
    return promise(
        lambda seeds: play(0, seeds), range(5000, 7000), SCALE, limit, choice.plan, **options
    )  # type: ignore[arg-type]


def test_a_promise_that_holds() -> None:
    said = promised(0.0)
    assert said.holds
    assert said.mean < said.upper <= 0.02
    assert said.upper < said.worst_episode < 1.0
    assert said.worst_possible == 1.0
    assert 100 <= said.episodes < 1000


def test_a_promise_that_does_not_hold_is_what_the_seeds_support() -> None:
    said = promised(0.1)
    assert not said.holds
    assert said.upper > 0.1
    assert said.episodes == 100


def test_time_that_is_over_ends_the_promise_but_not_before_the_least() -> None:
    said = promised(0.0, limit=0.001, least=30, out_of_time=lambda: True)
    assert said.episodes == 30
    assert not said.holds


def test_the_need_is_told_beforehand() -> None:
    least, likely = describe_need(0.01, SCALE, 0.1)
    assert 300 < least < 400
    assert likely > 1000
    assert describe_need(0.01, SCALE, 0.0)[1] == least


@pytest.mark.parametrize("world", WORLDS)
def test_the_stated_bound_is_true_as_often_as_it_says(world: str) -> None:
    # A hundred repetitions on a short test; `python -m tests.promise` does 1,000 on a long one.
    row = procedure(WORLDS[world], (0.05, PAST, PAST), 100, seed=3, most=400)
    assert row["bound_holds"] >= REQUIRED
    assert row["promised_in_vain"] <= 0.05
    assert row["median_bound"] > LIMIT


def test_worlds_have_the_loss_that_they_claim() -> None:
    rng = np.random.default_rng(1)
    for name, world in WORLDS.items():
        pairs = world.draw(rng, 400_000, 0.05)
        assert pairs.mean_loss == pytest.approx(0.05, abs=0.004), name
        assert world.scale.holding(pairs) == world.scale, name


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to choose"):
        choose(0, player(), SEEDS, SCALE, 0.01)
    with pytest.raises(InputError, match="level"):
        choose(1, player(0.0), SEEDS, SCALE, 0.01, level=0.0)
    with pytest.raises(InputError, match="no test seed"):
        promise(lambda seeds: player(0.0)(0, seeds), range(0), SCALE, 0.01, None)
