"""The energy model against figures worked out by hand, and the profiles that ship."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eventsim.analysis.energy import (
    DEFAULT_DEVICES,
    EnergyEstimate,
    Profile,
    estimate,
    list_profiles,
    load_profile,
)
from eventsim.network import Network
from eventsim.simulator import Simulator
from eventsim.trace import EnergyHook

DOCS = Path(__file__).resolve().parents[2] / "docs" / "energy.md"

# The network of docs/energy.md, and the counts of its step, written down by hand.
EXAMPLE = {
    "dense_macs": [0, 6, 3],
    "neurons": [2, 3, 1],
    "macs": [0, 2, 1],
    "acs": [0, 0, 0],
    "events": [1, 1, 0],
    "evaluations": [1, 2, 1],
    "is_input": [True, False, False],
}
# Worked out with a pocket calculator, in pJ: (by events, dense).
BY_HAND = {
    "loihi": (70.8 + 3.4 + 243.0 + 52.0, 212.4 + 324.0),
    "seneca": (38.1 + 2.2 + 36.3, 114.3 + 48.4),
    "cmos45-fp32-memory": (28.8, 86.4),
    "cmos45-fp32": (13.8, 41.4),
    "cpu": (3 * 8600 + 3 * 8600, 9 * 8600 + 4 * 8600),
    "spinnaker2": (3 * 450 + 4 * 2190, 9 * 450 + 4 * 2190),
    # Every neuron at the active price, hops inside the synop.
    "loihi-kerasspiking": (3 * 27.1 + 4 * 81, 9 * 27.1 + 4 * 81),
}

VALID = """
schema = "eventsim-profile/1"
name = "mine"
title = "My accelerator"
process = "12 nm"
precision = "INT8"
graded = "native"
updates = "every_step"

[mac]
value = 0.5
unit = "pJ"
basis = "measured"
includes = "all of it"
source = "data sheet"
confidence = "H"

[ac]
borrowed_from = "mac"
note = "no cheaper path"

[update]
value = 2
unit = "fJ"
basis = "assumed"
includes = "a guess"
source = "nobody"
confidence = "L"

[event]
unknown = true

[static]
value = 3
unit = "mW"
basis = "measured"
includes = "idle"
source = "data sheet"
confidence = "H"
per = "chip"
"""


def mine(tmp_path: Path, *changes: tuple[str, str]) -> Profile:
    text = VALID
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return load_profile(path)


@pytest.mark.parametrize("device", BY_HAND)
def test_worked_example_by_hand(device: str) -> None:
    result = estimate(load_profile(device), **EXAMPLE)
    event, dense = BY_HAND[device]
    assert result.event_joules_per_step == pytest.approx(event * 1e-12, rel=1e-12)
    assert result.dense_joules_per_step == pytest.approx(dense * 1e-12, rel=1e-12)


def test_worked_example_from_the_simulator() -> None:
    hidden = np.array([[-8.0, 2.0], [3.0, 0.0], [4.0, 5.0]])
    network = Network.from_arrays([hidden, np.ones((1, 3))], activation="relu")
    hook = EnergyHook(load_profile("loihi"))
    simulator = Simulator(network, hooks=[hook])
    simulator.run(np.array([[1.0, 1.0], [1.0, 1.5]]))
    counters = simulator.counters
    for key in ("macs", "events"):
        assert getattr(counters, key).tolist() == EXAMPLE[key]
    assert counters.evaluations[1:].tolist() == EXAMPLE["evaluations"][1:]
    assert hook.joules[1] == pytest.approx(np.array([1.7, 262.9, 104.6]) * 1e-12, rel=1e-12)
    assert hook.joules[1].sum() == pytest.approx(369.2e-12, rel=1e-12)


def test_docs_show_the_same_example() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for device in ("loihi", "seneca", "cmos45-fp32-memory"):
        for value in BY_HAND[device]:
            assert f"**{value:.1f}**" in text


def test_silent_neurons_cost_more_than_the_synops_on_loihi() -> None:
    loihi = load_profile("loihi")
    zero = [0]
    idle = loihi.joules(zero, zero, zero, zero, [140], [False])
    synops = loihi.joules(zero, zero, [26], zero, [0], [False])
    assert f"{idle[0] * 1e9:.1f}" == "7.3"
    assert f"{synops[0] * 1e9:.1f}" == "0.6"


def test_kerasspiking_formula() -> None:
    # keras-spiking: synops * e_synop + neurons * e_neuron, every timestep. 784-128 at a rate of
    # 0.1 events an input and step: 100352 connections, 10035.2 synops.
    profile = load_profile("loihi-kerasspiking")
    joules = profile.joules([0, 0], [78.4, 0], [0, 0], [0, 10035.2], [784, 128], [True, False])
    assert joules.sum() == pytest.approx(10035.2 * 27.1e-12 + 128 * 81e-12, rel=1e-12)
    # Its documented example: the dense layer on a CPU takes 8.64e-4 J.
    cpu = estimate(
        load_profile("cpu"),
        dense_macs=[0, 100352],
        neurons=[784, 128],
        macs=[0, 0],
        acs=[0, 0],
        events=[0, 0],
        evaluations=[0, 0],
        is_input=[True, False],
    )
    assert f"{cpu.dense_joules_per_step:.2e}" == "8.64e-04"


def test_static_energy_stands_apart() -> None:
    loihi = load_profile("loihi")
    with_time = estimate(loihi, **EXAMPLE, step_seconds=0.02)
    without = estimate(loihi, **EXAMPLE)
    assert with_time.static_joules_per_step == pytest.approx(0.104 * 0.02)
    assert with_time.event_joules_per_step == without.event_joules_per_step
    assert without.static_joules_per_step is None
    assert any("time of a step" in s for s in without.unpriced)
    assert any("one chip" in s for s in with_time.assumed)


def test_static_energy_is_never_counted_twice() -> None:
    spiking = {**EXAMPLE, "macs": [0, 0, 0], "acs": [0, 2, 1]}
    result = estimate(load_profile("truenorth"), **spiking, step_seconds=0.02)
    assert result.event_joules_per_step == pytest.approx(3 * 26e-12)
    assert result.static_joules_per_step is None
    assert any("contained" in s for s in result.assumed)


def test_an_unpriced_synop_gives_null_not_zero() -> None:
    for device in ("truenorth", "odin", "loihi2"):
        result = estimate(load_profile(device), **EXAMPLE)
        assert result.event_joules_per_step is None
        assert result.dense_joules_per_step is None
        assert any(s.startswith("graded synops (MACs): ") for s in result.unpriced)
    joules = load_profile("odin").joules([1, 2, 1], [1, 1, 0], [0, 2, 0], [0, 0, 1], [2, 3, 1],
                                         [True, False, False])  # fmt: skip
    assert np.isnan(joules).tolist() == [False, True, False]
    none = load_profile("loihi2").joules([0], [0], [0], [0], [3], [False])
    assert np.isnan(none).all()


def test_borrowed_prices_are_told() -> None:
    result = estimate(load_profile("loihi"), **EXAMPLE)
    assert any("graded synop (MAC) is priced as a binary synop (AC), 23.6 pJ" in s
               for s in result.assumed)  # fmt: skip
    assert not any("priced as" in s for s in estimate(load_profile("seneca"), **EXAMPLE).assumed)
    assert not any("a binary synop (AC) is" in s
                   for s in estimate(load_profile("cpu"), **EXAMPLE).assumed)  # fmt: skip


def test_to_dict_is_the_entry_of_run_json() -> None:
    result = estimate(load_profile("seneca"), **EXAMPLE, step_seconds=0.02)
    assert isinstance(result, EnergyEstimate)
    data = result.to_dict()
    assert list(data) == [
        "device",
        "dense_joules_per_step",
        "event_joules_per_step",
        "static_joules_per_step",
        "assumed",
        "unpriced",
    ]
    assert isinstance(data["event_joules_per_step"], float)
    assert any("Tang" in source for source in result.sources)


COUNTS = hnp.arrays(np.int64, (4, 3), elements=st.integers(0, 10_000))
SIZES = np.array([10_000, 20_000, 10_000])
INPUTS = np.array([True, False, False])
PRICED = [n for n in list_profiles() if load_profile(n).prices["mac"].known]


@given(COUNTS, COUNTS, COUNTS, COUNTS, st.sampled_from(PRICED))
def test_joules_add_up_over_steps_and_populations(
    e: np.ndarray, v: np.ndarray, m: np.ndarray, a: np.ndarray, device: str
) -> None:
    profile = load_profile(device)
    table = profile.joules(e, v, m, a, SIZES, INPUTS)
    assert table.shape == (4, 3)
    by_step = [profile.joules(*(x[t] for x in (e, v, m, a)), SIZES, INPUTS) for t in range(4)]
    np.testing.assert_array_equal(table, by_step)
    for k in range(3):
        column = slice(k, k + 1)
        one = profile.joules(*(x[:, column] for x in (e, v, m, a)), SIZES[column], INPUTS[column])
        np.testing.assert_array_equal(table[:, column], one)
    means = [x.mean(axis=0) for x in (e, v, m, a)]
    np.testing.assert_allclose(
        profile.joules(*means, SIZES, INPUTS), table.mean(axis=0), rtol=1e-12, atol=1e-30
    )


@given(COUNTS, st.integers(0, 3), st.integers(0, 2), st.sampled_from(PRICED))
def test_more_work_never_costs_less(counts: np.ndarray, which: int, k: int, device: str) -> None:
    profile = load_profile(device)
    before = profile.joules(*counts, SIZES, INPUTS)
    counts = counts.copy()
    counts[which, k] += 1
    after = profile.joules(*counts, SIZES, INPUTS)
    assert (after >= before * (1 - 1e-15)).all()
    if which >= 2:  # a synop always costs something
        assert after[k] > before[k]


def test_input_neurons_are_not_charged_as_updates() -> None:
    loihi = load_profile("loihi")
    joules = loihi.joules([5, 5], [0, 0], [0, 0], [0, 0], [10, 10], [True, False])
    assert joules[0] == 0.0
    assert joules[1] == pytest.approx(5 * 81e-12 + 5 * 52e-12)


@pytest.mark.parametrize("device", list_profiles())
def test_every_profile_is_in_the_docs_with_its_values(device: str) -> None:
    profile = load_profile(device)
    table = DOCS.read_text("utf-8").partition("## Profiles")[2]
    row = re.search(rf"^\| {re.escape(device)} \|.*$", table, re.MULTILINE)
    assert row, "add the profile to the table of docs/energy.md"
    cells = [cell.strip() for cell in row[0].strip("|").split("|")]
    assert cells[:3] == [device, profile.graded, profile.updates.replace("_", " ")]
    keys = ("mac", "ac", "memory", "update", "update_inactive", "event", "hop", "static")
    for key, cell in zip(keys, cells[3:], strict=True):
        price = profile.prices.get(key)
        if price is None:
            idle = key == "update_inactive" and profile.updates == "every_step"
            assert cell == ("same" if idle else "")
        elif price.borrowed_from:
            assert cell == f"= {price.borrowed_from.upper()}"
        elif price.included_in:
            assert cell == f"in {price.included_in.upper()}"
        elif price.value is None:
            assert cell == "-"
        else:
            ends = price.range_quoted.rpartition(" ")[0]
            assert cell == (
                price.quoted
                + (f" a {price.per}" if price.per else "")
                + (f" ({ends})" if ends else "")
            )
    assert profile.name == device


def test_default_devices_ship() -> None:
    assert set(DEFAULT_DEVICES) <= set(list_profiles())


def test_unknown_names_suggest_near_ones() -> None:
    with pytest.raises(LookupError, match="did you mean loihi"):
        load_profile("Lohi")
    with pytest.raises(LookupError, match="there are arm, "):
        load_profile("abacus")
    with pytest.raises(LookupError, match="does not exist"):
        load_profile(Path("nowhere.toml"))


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    profile = mine(tmp_path)
    result = estimate(profile, **EXAMPLE, step_seconds=2.0)
    assert result.event_joules_per_step == pytest.approx(3 * 0.5e-12 + 4 * 2e-15)
    assert result.static_joules_per_step == pytest.approx(6e-3)
    assert result.assumed[0] == "a neuron update is assumed to cost 2 fJ: a guess"
    assert profile.prices["ac"].value == profile.prices["mac"].value == 0.5e-12
    assert load_profile(str(tmp_path / "mine.toml")).name == "mine"


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ('unit = "pJ"\n', "", 10, r"field 'mac\.unit': is missing"),
        ('unit = "pJ"', 'unit = "pW"', 12, r"'mac\.unit': is 'pW'; give an energy in one of J, mJ"),
        ('unit = "mW"', 'unit = "mJ"', 35, r"'static\.unit': is 'mJ'; give a power"),
        ("value = 0.5", "value = -0.5", 11, r"'mac\.value': is -0\.5; give a finite number"),
        ("value = 0.5", "value = nan", 11, r"'mac\.value': is nan"),
        ("value = 0.5", "value = inf", 11, r"'mac\.value': is inf"),
        ("value = 0.5", "value = 0", 11, r"'mac\.value': is 0; write 'unknown = true'"),
        ("value = 0.5", "value = true", 11, r"'mac\.value': is True; give a number"),
        ("value = 0.5", 'value = "1"', 11, r"'mac\.value': is '1'; give a number"),
        ("value = 2\n", "value = 2\nunits = 3\n", 24, r"'update\.units': .* did you mean 'unit'"),
        ('basis = "assumed"', 'basis = "guess"', 25, r"'update\.basis': is 'guess'; give one of"),
        ('confidence = "L"', 'confidence = "X"', 28, r"'update\.confidence'"),
        ('source = "nobody"', 'source = ""', 27, r"'update\.source': is ''"),
        ('per = "chip"\n', "", 33, r"'static\.per': is missing"),
        ("unknown = true", "unknown = false", 31, r"'event\.unknown': must be true"),
        ("unknown = true", "", 30, r"'event': must have exactly one of value, unknown"),
        ("unknown = true", 'unknown = true\nincluded_in = "ac"', 30, r"exactly one of"),
        ('borrowed_from = "mac"', 'borrowed_from = "ac"', 19, r"not another price"),
        ('borrowed_from = "mac"', 'borrowed_from = "static"', 19, r"cannot stand in"),
        ('note = "no cheaper path"', "", 18, r"'ac\.note': is missing"),
        ('updates = "every_step"', 'updates = "always"', 8, r"field 'updates': is 'always'"),
        ('graded = "native"', 'graded = "assumed"', 10, r"'mac': must be borrowed or of basis"),
        ('graded = "native"', 'graded = "none"', 10, r"'mac': has a price, but graded = 'none'"),
        ("[event]\nunknown = true", "", None, r"field 'event': is missing; add the table"),
        ("[event]", "[events]", 30, r"field 'events': is not a known key.*'event'"),
        ("eventsim-profile/1", "eventsim-profile/9", 2, r"field 'schema': is 'eventsim-profile/9'"),
        ('name = "mine"', "name = 3", 3, r"field 'name': is 3; give a non-empty string"),
        ('title = "My accelerator"', 'assumptions = "one"', 4, r"must be a list of sentences"),
        (
            '"every_step"',
            '"on_event"\nupdate_inactive = 3',
            9,
            r"'update_inactive': has no meaning",
        ),
    ],
)
def test_a_file_out_of_order_is_refused_with_line_and_key(
    tmp_path: Path, old: str, new: str, line: int | None, message: str
) -> None:
    changes = [(old, new)]
    if "assumptions" in new:
        changes.append(("process", 'title = "x"\nprocess'))
    with pytest.raises(ValueError, match=message) as caught:
        mine(tmp_path, *changes)
    text = str(caught.value)
    assert "mine.toml" in text
    if line is not None:
        assert f"mine.toml, line {line}, " in text


def test_not_toml_and_not_text(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("name = \nx = 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"x\.toml: is not valid TOML.*line 1"):
        load_profile(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="cannot be read as a text file"):
        load_profile(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"macs": [0, -1, 0]}, "'macs'.*negative"),
        ({"macs": [0, math.nan, 0]}, "'macs'.*NaN"),
        ({"macs": [0, 1]}, "the same shape"),
        ({"neurons": [2, 3]}, "3 populations"),
        ({"events": ["a", "b", "c"]}, "'events'.*not numbers"),
        ({"step_seconds": 0.0}, "'step_seconds'.*above 0"),
        ({"step_seconds": math.nan}, "'step_seconds'.*above 0"),
    ],
)
def test_counts_out_of_order_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimate(load_profile("loihi"), **{**EXAMPLE, **change})
