"""Ranges, sensitivity, hops, other estimators, and the command that prices a finished run."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventsim import cli
from eventsim.analysis.energy import (
    DEFAULT_DEVICES,
    estimate,
    estimate_run,
    list_profiles,
    load_profile,
)
from eventsim.analysis.profile_file import parse_profile
from eventsim.tables import factor, joules
from tests.analysis.test_energy import DOCS, EXAMPLE, VALID

PJ = 1e-12
PRICED = [n for n in list_profiles() if load_profile(n).prices["mac"].known]


def docs_row(first: str, after: str) -> list[str]:
    """Cells of the row that begins with `first`, in the first table after a sentence."""
    text = DOCS.read_text(encoding="utf-8").partition(after)[2]
    row = re.search(rf"^\| {re.escape(first)} \|.*$", text, re.MULTILINE)
    assert row, f"no row {first} after '{after}'"
    return [cell.strip() for cell in row[0].strip("|").split("|")]


def test_there_are_at_least_twelve_priced_devices() -> None:
    assert len(PRICED) >= 12
    for name in list_profiles():
        for price in load_profile(name).prices.values():
            assert price.source or price.value is None


@pytest.mark.parametrize("device", PRICED)
def test_docs_show_the_example_on_every_device(device: str) -> None:
    result = estimate(load_profile(device), **EXAMPLE)
    _, dense, event, ends, mostly = docs_row(device, "The same step on every device")
    assert float(dense) == pytest.approx(result.dense_joules_per_step / PJ, rel=1e-5)
    assert float(event) == pytest.approx(result.event_joules_per_step / PJ, rel=1e-5)
    if ends:
        shown = [float(end) for end in ends.split(" to ")]
        assert shown == pytest.approx([j / PJ for j in result.event_joules_range], rel=1e-5)
    else:
        assert result.event_joules_range is None
    assert mostly.endswith(f"{100 * result.sensitivity[0].share:.0f} %")


def test_ranges_by_hand() -> None:
    result = estimate(load_profile("seneca"), **EXAMPLE)
    assert result.event_joules_range == pytest.approx((46.9 * PJ, 76.6 * PJ))
    assert result.dense_joules_range == pytest.approx((9 * 2.8 * PJ + 48.4 * PJ, 162.7 * PJ))
    memory = estimate(load_profile("cmos45-fp32-memory"), **EXAMPLE)
    assert memory.event_joules_range == pytest.approx((28.8 * PJ, 3 * 54.6 * PJ))
    # The hops of Loihi have a range, but nobody counted them here.
    assert estimate(load_profile("loihi"), **EXAMPLE).event_joules_range is None


def test_hops_are_priced_if_counted() -> None:
    without = estimate(load_profile("loihi"), **EXAMPLE)
    result = estimate(load_profile("loihi"), **EXAMPLE, hops=10.0)
    assert result.event_joules_per_step == pytest.approx(369.2 * PJ + 35 * PJ)
    assert result.event_joules_range == pytest.approx((399.2 * PJ, 409.2 * PJ))
    assert any("hops" in text for text in without.unpriced)
    assert not any("hops" in text for text in result.unpriced)
    assert result.parts["hop"] == pytest.approx(35 * PJ)
    with pytest.raises(ValueError, match="'hops': is -1"):
        estimate(load_profile("loihi"), **EXAMPLE, hops=-1.0)


COUNT = st.lists(st.integers(0, 1000), min_size=3, max_size=3)


@given(COUNT, COUNT, COUNT, COUNT, st.sampled_from(PRICED), st.floats(0, 100))
def test_parts_and_shares_add_up(
    e: list[int], v: list[int], m: list[int], a: list[int], device: str, hops: float
) -> None:
    profile = load_profile(device)
    result = estimate(
        profile, dense_macs=[9, 9, 9], neurons=[1000, 2000, 1000], is_input=[True, False, False],
        macs=m, acs=a, events=v, evaluations=e, hops=hops,
    )  # fmt: skip
    total = result.event_joules_per_step
    assert sum(result.parts.values()) == pytest.approx(total, rel=1e-12, abs=1e-30)
    if result.sensitivity:
        shares = [s.share for s in result.sensitivity]
        assert sum(shares) == pytest.approx(1.0)
        assert shares == sorted(shares, reverse=True)
    if result.event_joules_range is not None:
        low, high = result.event_joules_range
        assert low <= total * (1 + 1e-12)
        assert total <= high * (1 + 1e-12)


@pytest.mark.parametrize("device", PRICED)
def test_share_is_what_a_price_moves(device: str) -> None:
    from dataclasses import replace
    from types import MappingProxyType

    profile = load_profile(device)
    top = estimate(profile, **EXAMPLE).sensitivity[0]
    prices = {
        key: replace(price, value=1.01 * price.value)
        if key == top.price or price.borrowed_from == top.price
        else price
        for key, price in profile.prices.items()
    }
    before = estimate(profile, **EXAMPLE).event_joules_per_step
    moved = replace(profile, prices=MappingProxyType(prices))
    after = estimate(moved, **EXAMPLE).event_joules_per_step
    assert after / before - 1.0 == pytest.approx(0.01 * top.share)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("low = 0.2", r"'mac\.high': is missing; give both ends"),
        ("low = 0.6\nhigh = 0.9", r"line 11, field 'mac\.value': is 0\.5, outside of its range"),
        ("low = -1\nhigh = 0.9", r"line 12, field 'mac\.low': is -1"),
        ("low = 0.2\nhigh = 'x'", r"line 13, field 'mac\.high': is 'x'; give a number"),
    ],
)
def test_ranges_out_of_order_are_refused(lines: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_profile(VALID.replace("value = 0.5", f"value = 0.5\n{lines}"), "mine.toml")


# Other estimators on the step of the example: its activations, layer by layer, with dt = 1.
ACTIVATIONS = [np.array([1.0, 1.5]), np.array([0.0, 3.0, 11.5])]
CONNECTIONS = [6, 3]
HIDDEN = 3


def kerasspiking(synop: float, neuron: float, spiking: bool) -> float:
    """`ModelEnergy.total_energy`: a linear output layer has no neurons."""
    rates = [np.abs(x).mean() if spiking else 1.0 for x in ACTIVATIONS]
    synops = sum(c * r for c, r in zip(CONNECTIONS, rates, strict=True))
    return float(synop * synops + neuron * HIDDEN)


def test_kerasspiking_on_loihi_differs_as_the_docs_say() -> None:
    theirs = kerasspiking(27.1, 81.0, spiking=True)
    ours = estimate(load_profile("loihi"), **EXAMPLE).event_joules_per_step / PJ
    rows = {
        "an activation of 11.5": (22 - 3) * 27.1,
        "every synop carries a hop": 3 * 3.5,
        "an event within its tile": -2 * 1.7,
        "the inactive hidden neuron": 81 - 52,
        "an output without": -81.0,
    }
    assert ours + sum(rows.values()) == pytest.approx(theirs, rel=1e-12)
    text = DOCS.read_text(encoding="utf-8")
    for start, value in {**rows, "KerasSpiking, loihi |": theirs}.items():
        row = re.search(rf"^\| {re.escape(start)}.*$", text, re.MULTILINE)
        assert row
        shown = row[0].rstrip("| ").rpartition("|")[2].replace(" ", "")
        assert float(shown) == pytest.approx(value, abs=0.05)


def test_kerasspiking_on_a_cpu_is_our_dense_baseline_without_the_output_neuron() -> None:
    theirs = kerasspiking(8.6e-9, 8.6e-9, spiking=False)
    ours = estimate(load_profile("cpu"), **EXAMPLE)
    assert theirs == pytest.approx(103.2e-9)
    assert ours.dense_joules_per_step - theirs == pytest.approx(8.6e-9)


def test_syops_is_our_dense_baseline_and_the_relus() -> None:
    # No layer here has inputs of two values from 0 to 1 alone: all connections are MACs.
    assert all(x.max() > 1.0 for x in ACTIVATIONS)
    theirs = (sum(CONNECTIONS) + HIDDEN) * 4.6 * PJ
    ours = estimate(load_profile("cmos45-fp32"), **EXAMPLE)
    assert theirs == pytest.approx(55.2 * PJ)
    assert theirs - ours.dense_joules_per_step == pytest.approx(3 * 4.6 * PJ)


def test_mean_rate_times_connections_is_not_the_count_of_synops() -> None:
    """The reason for counting: equal means, unequal fan-outs."""
    fan_out = np.array([1, 9])
    spikes = np.array([1.0, 0.0])
    assert spikes.mean() * fan_out.sum() == 5.0
    assert (spikes * fan_out).sum() == 1.0


COUNTS = {key: column for key, column in EXAMPLE.items() if key != "is_input"}
RUN = {
    "schema": "eventsim-run/1",
    "policy": "tiny",
    "env": "Tiny-v0",
    "episodes": 1,
    "steps": 10,
    "seed": 0,
    "interrupted": False,
    "step_seconds": 0.02,
    "layers": [
        {"name": name, "weights": w} | {key: column[k] for key, column in COUNTS.items()}
        for k, (name, w) in enumerate((("input", 0), ("hidden1", 6), ("output", 3)))
    ],
}  # fmt: skip


def test_a_run_is_priced_from_its_file() -> None:
    for device in PRICED:
        assert estimate_run(RUN, device) == estimate(
            load_profile(device), **EXAMPLE, step_seconds=0.02
        )
    slow = estimate_run(RUN, load_profile("loihi"), step_seconds=1.0)
    assert slow.static_joules_per_step == pytest.approx(0.104)
    with pytest.raises(ValueError, match=r"'layers' is missing"):
        estimate_run({}, "loihi")
    empty = {**RUN, "layers": [{**RUN["layers"][0], "macs": None}]}
    with pytest.raises(ValueError, match="has no steps"):
        estimate_run(empty, "loihi")


LANDER = json.loads((DOCS.parent / "benchmarks" / "energy.json").read_text(encoding="utf-8"))["run"]


@pytest.mark.parametrize("device", PRICED)
def test_docs_show_a_policy_on_every_device(device: str) -> None:
    result = estimate_run(LANDER, device)
    row = docs_row(device, "## A policy on every device")
    _, dense, event, saving, ends, static, mostly = row
    assert dense == joules(result.dense_joules_per_step)
    assert event == joules(result.event_joules_per_step)
    assert saving == factor(result.dense_joules_per_step / result.event_joules_per_step)
    span = result.event_joules_range
    assert ends == ("" if span is None else " to ".join(map(joules, span)))
    power = result.static_joules_per_step
    assert static == ("-" if power is None else joules(power))
    assert mostly.endswith(f"{100 * result.sensitivity[0].share:.0f} %")


def test_the_policy_of_the_docs_adds_up() -> None:
    macs = sum(layer["macs"] for layer in LANDER["layers"])
    assert macs == pytest.approx(LANDER["total"]["macs"])
    assert sum(layer["dense_macs"] for layer in LANDER["layers"]) == 4864
    text = " ".join(DOCS.read_text(encoding="utf-8").split())
    found = LANDER["return"]
    assert f"return {found['mean']:.1f} with a standard deviation of {found['std']:.1f}" in text
    # Where MACs are all that is priced, the saving is the reduction.
    fp32 = estimate_run(LANDER, "cmos45-fp32")
    saving = fp32.dense_joules_per_step / fp32.event_joules_per_step
    assert saving == pytest.approx(LANDER["total"]["reduction"])


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", "90")
        monkeypatch.setattr(sys, "argv", ["eventsim", "energy", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run.json").write_text(json.dumps(RUN), encoding="utf-8")
    return tmp_path


def test_command_shows_tables_ranges_and_sources(call: Call, folder: Path) -> None:
    code, out, err = call(folder)
    assert (code, err) == (0, "")
    for device in DEFAULT_DEVICES:
        assert device in out
    for text in ("369 pJ", "536 pJ", "46.9 pJ to 76.6 pJ", "Davies et al.", "Horowitz",
                 "What moves the result most", "Sources", "Not priced"):  # fmt: skip
        assert text in out
    assert max(map(len, out.splitlines())) <= 90


def test_command_takes_a_file_of_ones_own(call: Call, folder: Path) -> None:
    mine = folder / "mine.toml"
    mine.write_text(VALID, encoding="utf-8")
    code, out, _ = call(folder / "run.json", "--device", mine, "--device", "loihi", "--json")
    assert code == 0
    first, second = json.loads(out)
    assert (first["device"], second["device"]) == ("mine", "loihi")
    assert first["event_joules_per_step"] == pytest.approx(3 * 0.5 * PJ + 4 * 2e-15)
    assert second["sensitivity"][0]["price"] == "update"
    mine.write_text(VALID.replace('unit = "pJ"\n', ""), encoding="utf-8")
    code, out, err = call(folder, "--device", mine)
    assert code == 2
    assert "mine.toml, line 10, field 'mac.unit': is missing" in err


def test_command_says_what_the_run_said(call: Call, tmp_path: Path) -> None:
    from eventsim.runner import run
    from tests.tiny import cartpole_policy

    result = run(cartpole_policy(), episodes=1, dense=False, progress=False, out=tmp_path)
    code, out, _ = call(tmp_path, "--json")
    assert code == 0
    for ours, theirs in zip(result.energy, json.loads(out), strict=True):
        assert {key: theirs[key] for key in ours} == ours


def test_command_on_all_devices(call: Call, folder: Path) -> None:
    code, out, _ = call(folder, "--all", "--step-seconds", "0.5")
    assert code == 0
    for device in list_profiles():
        assert device in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "there is no run at 'nowhere'"),
        (["{}", "--device", "lohi"], "did you mean loihi"),
        (["{}", "--device", "loihi", "--all"], "not both"),
        (["{}/bad.json"], "bad.json: cannot be read as JSON"),
        (["{}/list.json"], "list.json: does not hold a JSON object"),
    ],
)
def test_command_says_what_is_wrong(
    call: Call, folder: Path, arguments: list[Any], message: str
) -> None:
    (folder / "bad.json").write_text("{", encoding="utf-8")
    (folder / "list.json").write_text("[]", encoding="utf-8")
    code, out, err = call(*(text.format(folder) for text in arguments))
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
