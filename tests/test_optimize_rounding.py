"""Candidates in fixed point: the best version of each, found again after an interruption."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eventsim import optimize_rounding
from eventsim.models.arena import Arena, digest
from eventsim.models.policy import Policy
from eventsim.models.rounding import WAYS
from eventsim.optimize_rounding import Rounding
from eventsim.optimize_search import Entry
from tests.fake_search import ENV, Found, linear, teacher

HOLDS = linear([0.0, 0.0, 1.0, 0.5], 0.02)
CANDIDATES = [
    Entry(Found(HOLDS, (4, 2), 3.0, 0.0), 0.0),
    Entry(Found(teacher(), (4, 8, 2), 20.0, 0.0), 0.0),
]


@pytest.fixture
def arena(monkeypatch: pytest.MonkeyPatch) -> Arena:
    pytest.importorskip("torch", reason="needs the extra 'train'")
    quick = {name: replace(way, iterations=5) for name, way in WAYS.items()}
    monkeypatch.setattr(optimize_rounding, "WAYS", quick)
    arena = Arena(teacher(), ENV)
    arena.measure(range(5), range(20))
    return arena


def rounding(arena: Arena, folder: Path, late: bool = False, bits: int = 4) -> Rounding:
    return Rounding(
        bits,
        arena,
        range(1000, 2000),
        seed=0,
        limit=0.05,
        folder=folder,
        say=lambda text: None,
        late=lambda: late,
    )


def test_candidates_come_back_in_fixed_point(arena: Arena, tmp_path: Path) -> None:
    found = rounding(arena, tmp_path).entries(CANDIDATES)
    assert [one.candidate.shape for one in found] == [(4, 2), (4, 8, 2)]
    for one in found:
        policy = one.candidate.policy
        assert policy.metadata["weight_bits"] == 4
        assert one.loss <= 0.025
        work = arena.work(policy, range(1008, 1068))
        assert (one.candidate.macs, one.candidate.acs) == (work.macs, work.acs)
    again = rounding(arena, tmp_path).entries(CANDIDATES)
    assert [digest(one.candidate.policy) for one in again] == [
        digest(one.candidate.policy) for one in found
    ]
    anew = rounding(arena, tmp_path / "anew").entries(CANDIDATES)
    assert [digest(one.candidate.policy) for one in anew] == [
        digest(one.candidate.policy) for one in found
    ]


def test_what_was_made_is_not_made_again(
    arena: Arena, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = rounding(arena, tmp_path).entries(CANDIDATES)
    monkeypatch.setattr(optimize_rounding, "fine_tuned", None)
    monkeypatch.setattr(optimize_rounding, "quantize", None)
    again = rounding(arena, tmp_path).entries(CANDIDATES)
    for one, two in zip(found, again, strict=True):
        assert (one.loss, one.synops) == (two.loss, two.synops)


def test_the_best_version_is_kept(
    arena: Arena, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    falls, dear = linear([0.0, 0.0, 1.0, 0.0], 0.5), linear([0.0, 0.0, 1.0, 0.5], 0.0)
    cheap = linear([0.0, 0.0, 1.0, 0.5], 0.05)
    made: dict[str, list[Policy]] = {
        "one that holds before one that falls": [falls, dear],
        "the cheaper of two that hold": [dear, cheap],
        "rounded, where training changes nothing": [cheap, dear],
        "and where it diverges": [cheap],
    }
    for k, (case, (rounded, *tuned)) in enumerate(made.items()):
        monkeypatch.setattr(optimize_rounding, "quantize", lambda *_, one=rounded: one)
        versions = iter([*tuned, *[None] * len(WAYS)])
        monkeypatch.setattr(optimize_rounding, "fine_tuned", lambda *_, v=versions: next(v))
        (found,) = rounding(arena, tmp_path / str(k)).entries(CANDIDATES[:1])
        expected = dear if rounded is falls else cheap
        assert digest(found.candidate.policy) == digest(expected), case


def test_where_time_is_over_candidates_are_just_rounded(
    arena: Arena, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimize_rounding, "fine_tuned", None)
    (found,) = rounding(arena, tmp_path, late=True).entries([replace(CANDIDATES[0], loss=0.012345)])
    assert (found.loss, found.synops) == (0.012345, 3.0)
    assert found.candidate.policy.metadata["weight_bits"] == 4
    weights = found.candidate.policy.network.projections[0].weights.to_dense()
    assert (weights != 0).sum() == np.count_nonzero(HOLDS.network.projections[0].weights.to_dense())
    assert list(tmp_path.iterdir()) == []
