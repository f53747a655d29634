"""Networks on chips: placed by hand, limits kept by property, traffic against plain loops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import inputs, networks

from eventsim.analysis.chip import Chip, Limit, Mesh, list_chips, load_chip, parse_chip
from eventsim.analysis.energy import estimate, load_profile
from eventsim.analysis.mapping import OUTSIDE, Mapping, map_network
from eventsim.network import Network
from eventsim.simulator import Simulator
from eventsim.trace import CounterRecorder, EventRecorder


def chip(mesh: Mesh | None = None, **limits: int | None) -> Chip:
    values = {
        "cores": 4, "neurons": None, "memory": None, "weight": 8, "state": None,
        "fan_in": None, "fan_out": None, **limits,
    }  # fmt: skip
    return Chip("test", "A test", MappingProxyType({k: Limit(v) for k, v in values.items()}), mesh)


@pytest.fixture
def network() -> Network:
    """3-4-2; hidden 3 has no synapse from input 0."""
    first = np.ones((4, 3))
    first[3, 0] = 0.0
    return Network.from_arrays([first, np.ones((2, 4))])


def test_neurons_by_hand(network: Network) -> None:
    mapping = map_network(network, chip(neurons=3))
    assert mapping.core.tolist() == [OUTSIDE] * 3 + [0, 0, 0, 1, 2, 2]
    assert mapping.neurons.tolist() == [3, 1, 2]
    assert mapping.memory_bits.tolist() == [9 * 8, 2 * 8, 8 * 8]
    assert mapping.fan_in.tolist() == [3, 2, 4]
    assert mapping.fan_out.tolist() == [3, 1, 0]
    assert mapping.fits
    assert (mapping.cores_used, mapping.chips_used) == (3, 1)
    assert mapping.utilisation == {
        "cores": 0.75, "neurons": 2 / 3, "memory": None, "fan_in": None, "fan_out": None,
    }  # fmt: skip
    assert mapping.table()[1] == {
        "name": "hidden1", "neurons": 4, "cores": 2, "first_core": 0, "last_core": 1,
    }  # fmt: skip


def test_layers_may_share_a_core(network: Network) -> None:
    mapping = map_network(network, chip(neurons=3), share_cores=True)
    assert mapping.core[3:].tolist() == [0, 0, 0, 1, 1, 1]


def test_memory_and_state_by_hand(network: Network) -> None:
    # A hidden neuron has 3 (or 2) weights of 4 bits and 10 bits of state: 22, 22, 22, 18.
    mapping = map_network(network, chip(memory=44, state=10), weight_bits=4)
    assert mapping.core[3:7].tolist() == [0, 0, 1, 1]
    assert mapping.memory_bits.tolist() == [44, 40, 26, 26]
    assert mapping.cores_used == 4


def test_fan_in_starts_a_new_core(network: Network) -> None:
    first = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    sparse = network.with_weights({"input->hidden1": first})
    mapping = map_network(sparse, chip(fan_in=2))
    assert mapping.core[3:7].tolist() == [0, 0, 1, 1]
    assert mapping.fan_in.tolist()[:2] == [1, 2]


def test_what_does_not_fit_is_said(network: Network) -> None:
    mapping = map_network(network, chip(cores=2, neurons=2, fan_in=3, fan_out=1))
    assert not mapping.fits
    assert mapping.chips_used == 2
    assert mapping.problems == (
        "it takes 4 cores, and a chip has 2",
        "core 2 needs 4 source neurons, and has 3; the same on 1 more",
        "core 0 needs 4 pairs of neuron and target core, and has 1; the same on 1 more",
    )


def test_traffic_by_hand(network: Network) -> None:
    mapping = map_network(network, chip(Mesh(2, 2, 1, "s", "H"), neurons=2))
    # hidden on cores 0 and 1, output on core 2: tiles (0, 0), (1, 0), (0, 1).
    events = {
        "step": np.array([0, 0, 1, 1]),
        "population": np.array([0, 1, 1, 1]),
        "neuron": np.array([0, 0, 2, 3]),
        "value": np.ones(4),
    }
    traffic = mapping.traffic(events, steps=3)
    # Input 0 reaches hidden 0 to 2: 2 synapses on core 0, 1 on core 1. A hidden neuron reaches 2.
    assert traffic.synops.tolist() == [2, 1, 6]
    assert traffic.busiest_core.tolist() == [0, 2, OUTSIDE]
    assert traffic.busiest_synops.tolist() == [2, 4, 0]
    assert traffic.from_outside.tolist() == [2, 0, 0]
    assert traffic.crossing.tolist() == [1, 2, 0]
    assert traffic.local.tolist() == [0, 0, 0]
    assert traffic.crossing_share == 1.0
    assert traffic.hops is not None
    assert traffic.hops.tolist() == [1, 4, 0]
    assert traffic.hops_per_step == pytest.approx(5 / 3)
    assert traffic.balance == pytest.approx((2 + 4) * 3 / 9)
    empty = {name: column[:0] for name, column in events.items()}
    quiet = mapping.traffic(empty, steps=2)
    assert (quiet.crossing_share, quiet.balance, quiet.hops_per_step) == (None, None, 0.0)


def test_hops_are_priced(network: Network) -> None:
    mapping = map_network(network, "loihi")
    recorder, counters = EventRecorder(), CounterRecorder()
    Simulator(network, hooks=[recorder, counters]).run(np.random.default_rng(1).normal(size=(9, 3)))
    traffic = mapping.traffic(recorder.to_arrays(), steps=9)
    means = counters.table.mean(axis=0)
    counts = dict(zip(("evaluations", "events", "macs", "acs"), means.T, strict=False))
    result = estimate(
        load_profile("loihi"), **counts, dense_macs=[0, 12, 8], neurons=[3, 4, 2],
        is_input=[True, False, False], hops=traffic.hops_per_step,
    )  # fmt: skip
    assert "hops" not in " ".join(result.unpriced)


@given(st.data())
def test_limits_hold_and_counts_add_up(data: st.DataObject) -> None:
    network = data.draw(networks(max_threshold=0.2))
    limits = {
        "neurons": data.draw(st.integers(1, 6)),
        "memory": data.draw(st.integers(50, 400)),
        "fan_in": data.draw(st.integers(2, 20)),
    }
    mapping = map_network(network, chip(**limits), share_cores=data.draw(st.booleans()))
    assert isinstance(mapping, Mapping)
    assert mapping.neurons.sum() == network.n_neurons - network.n_inputs
    assert mapping.memory_bits.sum() == 8 * network.n_synapses
    placed = mapping.core[mapping.core != OUTSIDE]
    assert (np.diff(placed) >= 0).all()
    assert np.unique(placed).tolist() == list(range(mapping.cores_used))
    # Only a neuron alone on its core may break a limit.
    for name, used in (("memory", mapping.memory_bits), ("fan_in", mapping.fan_in)):
        assert (mapping.neurons[used > limits[name]] == 1).all()
    assert (mapping.neurons <= limits["neurons"]).all()

    x = data.draw(inputs(network))
    recorder, counters = EventRecorder(), CounterRecorder()
    Simulator(network, hooks=[recorder, counters]).run(x)
    traffic = mapping.traffic(recorder.to_arrays(), steps=len(x))
    outgoing = {p.name: np.zeros(p.size, np.int64) for p in network.populations}
    for q in network.projections:
        outgoing[q.source] += np.diff(q.weights.rows()[0])
    arrays = recorder.to_arrays()
    synops = sum(
        int(outgoing[network.populations[p].name][n])
        for p, n in zip(arrays["population"], arrays["neuron"], strict=True)
    )
    assert traffic.synops.sum() == synops
    if all(q.delay == 0 for q in network.projections):
        assert synops == counters.table[:, :, 2:4].sum()
    assert (traffic.busiest_synops <= traffic.synops.max(initial=0)).all()


def test_chunks_do_not_matter(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    mapping = map_network(network, chip(neurons=1, cores=9))
    recorder = EventRecorder()
    Simulator(network, hooks=[recorder]).run(np.random.default_rng(2).normal(size=(40, 3)))
    whole = mapping.traffic(recorder.to_arrays(), steps=40)
    monkeypatch.setattr("eventsim.analysis.mapping._TABLE", 30)
    pieces = mapping.traffic(recorder.to_arrays(), steps=40)
    assert pieces.synops.tolist() == whole.synops.tolist()
    assert pieces.busiest_core.tolist() == whole.busiest_core.tolist()


@pytest.mark.parametrize("name", list_chips())
def test_shipped_chips_cite_their_sources(name: str) -> None:
    found = load_chip(name)
    assert found.name == name
    assert found.sources
    for limit in found.limits.values():
        assert (limit.value is None) == (limit.source == "")
        assert limit.value is None or limit.confidence in "HML"
    page = Path(__file__).parents[2] / "docs" / "mapping.md"
    assert f"| {name} |" in page.read_text(encoding="utf-8")


def test_published_limits() -> None:
    loihi = load_chip("loihi")
    assert (loihi["cores"], loihi["neurons"], loihi["memory"]) == (128, 1024, 128 * 1024 * 8)
    assert (loihi["fan_in"], loihi["fan_out"]) == (4096, 4096)
    assert load_chip("spinnaker2")["cores"] == 152


def test_weight_bits_change_what_fits() -> None:
    network = Network.from_arrays([np.ones((1024, 256))])
    assert map_network(network, "loihi", weight_bits=4).cores_used == 1
    assert map_network(network, "loihi").cores_used == 2
    with pytest.raises(ValueError, match="'weight_bits': is 0"):
        map_network(network, "loihi", weight_bits=0)


TEXT = (Path(__file__).parents[2] / "analysis" / "chips" / "loihi.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("value = 1024", "value = -1", r"line 15, field 'neurons\.value': is -1"),
        ("value = 1024", "value = 1.5", r"'neurons\.value': is 1\.5; give a whole number"),
        ('unit = "bit"\n', "", r"'memory\.unit': is missing"),
        ('unit = "bit"', 'unit = "bits"', r"'memory\.unit': is 'bits'; give one of bit, byte"),
        ("[fan_in]", "[fanin]", r"'fanin': is not a known key here; did you mean 'fan_in'"),
        ("value = 128\n", "values = 128\n", r"'cores\.values'.*did you mean 'value'"),
        ("[cores]\nvalue = 128", "[cores]\nunknown = true\nnote = 'x'\n[x]", "'x': is not a known"),
        ('confidence = "H"', 'confidence = "X"', "confidence': is 'X'"),
        ("eventsim-chip/1", "eventsim-chip/2", "'schema': is 'eventsim-chip/2'"),
        ("[state]\nunknown = true\n", "[state]\nunknown = 1\n", r"'state\.unknown': must be true"),
        ("width = 8", "width = 0", r"'mesh\.width': is 0"),
        ('title = "Intel Loihi"', "title = 3", "'title': is 3"),
        ("schema =", "schema", "is not valid TOML"),
    ],
)
def test_files_out_of_order_are_refused(old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(ValueError, match=message):
        parse_chip(TEXT.replace(old, new, 1), "mine.toml")


def test_missing_tables_and_names(tmp_path: Path) -> None:
    begin, end = TEXT.index("[cores]"), TEXT.index("[neurons]")
    with pytest.raises(ValueError, match=r"'cores': is missing; add the table \[cores\]"):
        parse_chip(TEXT[:begin] + TEXT[end:], "mine.toml")
    with pytest.raises(ValueError, match="'cores': must have a value"):
        parse_chip(TEXT[:begin] + "[cores]\nunknown = true\n" + TEXT[end:], "mine.toml")
    with pytest.raises(LookupError, match="did you mean loihi"):
        load_chip("lohi")
    with pytest.raises(LookupError, match="does not exist"):
        load_chip(tmp_path / "no.toml")
    (tmp_path / "mine.toml").write_text(TEXT, encoding="utf-8")
    assert load_chip(tmp_path / "mine.toml")["cores"] == 128
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="cannot be read as a text file"):
        load_chip(tmp_path / "bad.toml")
    several = replace(load_chip("loihi"), limits=chip(cores=1, neurons=1).limits)
    network = Network.from_arrays([np.ones((2, 1))])
    events = {name: np.zeros(1, np.int64) for name in ("step", "population", "neuron")}
    assert map_network(network, several).traffic({**events, "value": [1.0]}).hops is None
