"""The search finds cheaper policies, goes on where it was stopped, and refuses another's folder."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eventsim.errors import InputError
from eventsim.models import optimize
from eventsim.models.optimize import Search, Settings
from eventsim.models.validation import Validation
from tests.tiny import cartpole_policy

SMALL = Settings(
    recorded_steps=600,
    visits=1,
    visited_steps=300,
    dense_iterations=150,
    event_iterations=20,
    starts=1,
    screened=2,
    wider=(0,),
    rounds=2,
    slack=0.5,
    refine_checks=6,
)

pytestmark = pytest.mark.slow


def search(folder: Path, **options: object) -> Search:
    pytest.importorskip("torch", reason="needs the extra 'train'")
    arguments = {"workdir": folder, "settings": SMALL, **options}
    return Search(cartpole_policy(), "CartPole-v1", **arguments)  # type: ignore[arg-type]


def test_it_goes_on_where_it_was_stopped_with_the_same_result(tmp_path: Path) -> None:
    whole = search(tmp_path / "whole")
    names = list(whole.stages())
    assert names[0] == "teacher"
    assert any(name.startswith("events") for name in names)
    assert any(name.startswith("refined") for name in names)
    stopped = search(tmp_path / "stopped")
    for _, _ in zip(range(3), stopped.stages(), strict=False):
        pass
    # A stage that was cut leaves arrays without a record, and is done again.
    (tmp_path / "stopped" / f"{names[3].replace(' ', '-')}.npz").write_bytes(b"cut")
    again = search(tmp_path / "stopped")
    assert list(again.stages()) == names
    assert [c.name for c in again.candidates] == [c.name for c in whole.candidates]
    for one, two in zip(again.candidates, whole.candidates, strict=True):
        np.testing.assert_array_equal(one.returns, two.returns)
        assert one.macs == two.macs
        for q, p in zip(
            one.policy.network.projections, two.policy.network.projections, strict=True
        ):
            np.testing.assert_array_equal(q.weights.to_dense(), p.weights.to_dense())
    small = whole.smallest_dense(1.0)
    assert small is not None
    assert small.macs < cartpole_policy().dense_macs * 2
    for most in (1.0, whole.loss(small.returns) - 1e-6):  # whatever the search was to find enough
        one = whole.smallest_dense(most)
        assert one is None or whole.loss(one.returns) <= min(most, SMALL.slack)
    events = [c for c in whole.candidates if c.kind == "events"]
    assert min(c.macs for c in events) < small.macs
    refined = [c for c in events if c.name.startswith("refined")]
    assert min(c.macs for c in refined) < max(c.macs for c in events if c not in refined)
    assert events[0].policy.dense_macs == cartpole_policy().dense_macs


def test_where_no_student_holds_the_teacher_itself_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eventsim.models import families

    monkeypatch.setattr(families, "SHAPES", ((),))
    # No loss is small enough for a student; for the ladder any is within its error.
    monkeypatch.setattr(Validation, "error", lambda self, returns: np.inf)
    effort = replace(SMALL, slack=-1e-9, rounds=2, own_iterations=20, own_steps=400)
    one = search(tmp_path, settings=effort)
    names = list(one.stages())
    assert names[1:] == ["dense 4-2", "own", "events own round 0", "events own round 1"]
    found = {c.name: c for c in one.candidates}
    assert found["own"].macs == found["own"].dense_macs == one.teacher.dense_macs
    np.testing.assert_array_equal(found["own"].returns, one.teacher_returns)
    assert found["events own round 1"].policy.network.n_synapses < one.teacher.network.n_synapses
    again = search(tmp_path, settings=effort)
    assert list(again.stages()) == names


def test_a_ladder_from_the_teacher_goes_back_behind_a_round_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eventsim.models import families

    monkeypatch.setattr(families, "SHAPES", ((),))
    monkeypatch.setattr(Validation, "error", lambda self, returns: 0.0)
    begun: list[tuple[str, str, int, int]] = []
    whole = Search._events

    def noted(self: Search, name: str, before: str, start: str, number: int, gentle: int) -> Any:
        begun.append((name, before, number, gentle))
        return whole(self, name, before, start, number, gentle)

    monkeypatch.setattr(Search, "_events", noted)
    effort = replace(SMALL, slack=-1e-9, rounds=3, own_iterations=10, own_steps=400)
    one = search(tmp_path, settings=effort)
    list(one.stages())
    # Nothing holds, so every round begins with the teacher itself, ever more gently.
    assert begun == [(f"events own round {k}", "own", 0, k) for k in range(3)]
    cut = {c.policy.network.n_synapses for c in one.candidates if c.start == "own"}
    assert cut == {one.teacher.network.n_synapses}


def test_the_budget_ends_it_without_an_error(tmp_path: Path) -> None:
    lines: list[str] = []
    done = search(tmp_path, budget=0.0, say=lines.append)
    assert list(done.stages()) == []
    assert lines == ["the budget is spent"]
    assert math.isfinite(done.seconds)


def test_the_folder_of_another_search_is_refused(tmp_path: Path) -> None:
    search(tmp_path)
    with pytest.raises(InputError, match="another teacher, environment, seed or settings"):
        search(tmp_path, seed=1)
    search(tmp_path)


def test_seeds_of_different_uses_do_not_meet() -> None:
    starts = sorted(optimize.SEEDS.values())
    assert all(b - a >= 100_000 for a, b in itertools.pairwise(starts))
