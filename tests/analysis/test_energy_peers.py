"""Other estimators of energy on the step of docs/energy.md: every difference is accounted for.

What they say was recorded by tests/reference_energy.py.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from eventsim.analysis.energy import EnergyEstimate, estimate, load_profile
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "energy.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## Other estimators on the same step")[2].partition("\n## ")[0]


@pytest.fixture(scope="module")
def peers() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(
        (ROOT / "tests" / "data" / "energy_peers.json").read_text(encoding="utf-8")
    )
    return data


def step(device: str) -> EnergyEstimate:
    return estimate(
        load_profile(device),
        dense_macs=[0, 6, 3],
        neurons=[2, 3, 1],
        is_input=[True, False, False],
        macs=[0, 2, 1],
        acs=[0, 0, 0],
        events=[1, 1, 0],
        evaluations=[2, 2, 1],
    )


def picojoules(device: str) -> float:
    joules = step(device).event_joules_per_step
    assert joules is not None
    return 1e12 * joules


def rows(after: str) -> list[float]:
    """The last column of the table that follows a text, signs and all."""
    lines = SECTION.partition(after)[2].partition("|---|---|---|\n")[2].splitlines()
    found = []
    for line in lines:
        if not line.startswith("|"):
            break
        found.append(float(line.split("|")[-2].replace(" ", "")))
    return found


def test_keras_spiking_on_loihi(peers: dict[str, Any]) -> None:
    ours, *steps, theirs = rows("**KerasSpiking, device loihi**")
    assert ours == pytest.approx(picojoules("loihi"))
    assert theirs == pytest.approx(1e12 * peers["keras-spiking"]["loihi"], rel=1e-6)
    assert ours + sum(steps) == pytest.approx(theirs)
    synops = 6 * 1.25 + 3 * 14.5 / 3
    terms = [(synops - 3) * 27.1, 3 * 3.5, -2 * 1.7, 81 - 52, -81]
    assert steps == pytest.approx(terms)


@pytest.mark.parametrize(("device", "price"), [("cpu", 8.6e-9), ("gpu", 0.3e-9), ("arm", 0.9e-9)])
def test_keras_spiking_where_it_ignores_activity(
    device: str, price: float, peers: dict[str, Any]
) -> None:
    assert peers["keras-spiking"][device] == pytest.approx((9 + 3) * price)
    # We update the output neuron too.
    assert step(device).dense_joules_per_step == pytest.approx((9 + 4) * price)


@pytest.mark.parametrize("device", ["spinnaker", "spinnaker2"])
def test_keras_spiking_on_spinnaker(device: str, peers: dict[str, Any]) -> None:
    prices = load_profile(device).prices
    synop, update = prices["ac"].value, prices["update"].value
    assert synop is not None
    assert update is not None
    assert peers["keras-spiking"][device] == pytest.approx(22 * synop + 3 * update, rel=1e-6)


def test_syops(peers: dict[str, Any]) -> None:
    assert peers["syops"]["graded"] == {"operations": 12.0, "acs": 0.0, "macs": 12.0}
    assert "6 + 3 + 3 relus = 12 MACs, 55.2 pJ" in SECTION
    assert pytest.approx(55.2) == 12 * 4.6
    # Binary inputs of mean 1/2 make half of six connections ACs.
    assert peers["syops"]["binary"] == {"operations": 12.0, "acs": 3.0, "macs": 6.0}
    assert picojoules("cmos45-fp32") == pytest.approx(13.8)


def test_spikingjelly(peers: dict[str, Any]) -> None:
    graded = peers["spikingjelly"]["graded"]
    ours, *steps, theirs = rows("**SpikingJelly, 4.6 pJ")
    assert ours == pytest.approx(picojoules("cmos45-fp32-memory"))
    assert theirs == pytest.approx(graded["total_pj"])
    assert ours + sum(steps) == pytest.approx(theirs)
    assert steps == pytest.approx([6 * 9.6, -3 * 3.7, 9 * (4 * 24.96 - 5)])
    assert (graded["counts"]["mac"], graded["counts"]["ac"]) == (6, 3)
    binary = peers["spikingjelly"]["binary"]
    assert (binary["counts"]["mac"], binary["counts"]["ac"]) == (0, 3 + 3)
