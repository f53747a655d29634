"""Spiking networks in continuous time: the reference engine, the simulator around it."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventsim import (
    EIF,
    LIF,
    QIF,
    CounterRecorder,
    Counters,
    Delta,
    EnergyHook,
    EventRecorder,
    Hook,
    Input,
    Network,
    ParquetRecorder,
    PoissonInput,
    Population,
    Projection,
    Simulator,
    SimulatorState,
    SpikeInput,
    Trace,
    load_profile,
)
from eventsim.connectivity import Rows
from eventsim.errors import (
    FileFormatError,
    InputError,
    NetworkError,
    SimulationError,
    UnknownNameError,
    UnsupportedError,
)
from eventsim.spiking_compile import BLOCK, Status, compile_spiking
from eventsim.spiking_engines import CrossingEngine
from tests.spiking_brute import simulate
from tests.spiking_strategies import spiking_networks

ALONE = LIF(tau=0.01, drive=1.2)
PERIOD = 0.01 * math.log(1.2 / 0.2)


def network(model: Any, weights: Any = None, **options: Any) -> Network:
    """One population, and a projection onto itself if there are weights."""
    size = 1 if weights is None else np.shape(weights)[0]
    size = options.pop("size", size)
    projections = [] if weights is None else [Projection("n", "n", weights, **options)]
    return Network([Population("n", size, model)], projections)


def spikes(net: Network, until: float = math.inf, count: int = 1 << 20) -> list[tuple[float, int]]:
    times, ids = CrossingEngine(compile_spiking(net)).run(until, count)
    return list(zip(times.tolist(), ids.tolist(), strict=True))


@pytest.mark.nojit
@given(spiking_networks())
def test_order_is_that_of_a_scan_over_all_neurons(net: Network) -> None:
    engine = CrossingEngine(compile_spiking(net))
    expected, counts = simulate(net, 0.08, 400)
    times, ids = engine.run(0.08, 400)
    assert ids.tolist() == [i for _, i in expected]
    np.testing.assert_allclose(times, [t for t, _ in expected], rtol=0, atol=1e-14)
    assert (np.diff(times) >= 0.0).all()
    if len(expected) < 400:
        assert engine.totals[:, 1].tolist() == counts[:, 0].tolist()
        assert engine.totals[:, 3].tolist() == counts[:, 1].tolist()


@settings(max_examples=40)
@given(spiking_networks(), st.lists(st.floats(0.0, 0.08), max_size=4), st.integers(1, 50))
def test_a_run_does_not_depend_on_its_cuts(net: Network, cuts: list[float], chunk: int) -> None:
    whole = CrossingEngine(compile_spiking(net))
    times, ids = whole.run(0.08, 300)
    pieces = CrossingEngine(compile_spiking(net))
    found: list[tuple[float, int]] = []
    for until in [*sorted(cuts), 0.08]:
        while len(found) < 300:
            pieces.peek()  # changes nothing
            t, i = pieces.run(until, min(chunk, 300 - len(found)))
            found += zip(t.tolist(), i.tolist(), strict=True)
            other = CrossingEngine(compile_spiking(net))
            other.set_state(pieces.get_state())
            pieces = other
            if pieces.run(until, 0)[0].size == 0 and t.size == 0:
                break
    assert found == list(zip(times.tolist(), ids.tolist(), strict=True))


def test_a_neuron_alone_spikes_in_closed_form() -> None:
    for model, period in (
        (ALONE, PERIOD),
        (LIF(drive=1.2, refractory=0.002), PERIOD + 0.002),
        (QIF(tau=0.01, drive=0.25), 0.01 * math.pi / 0.5),
        (
            QIF(tau=0.01, drive=1.0, threshold=2.0, reset=-1.0),
            0.01 * (math.atan(2) + math.pi / 4),
        ),
        (EIF(drive=1.2), EIF(drive=1.2).table.period),
    ):
        times = [t for t, _ in spikes(network(model), count=500)]
        np.testing.assert_allclose(np.diff(times), period, rtol=1e-11)


def test_time_constants_may_differ() -> None:
    model = LIF(tau=[0.01, 0.02], drive=[1.2, 1.5], refractory=[0.0, 0.001])
    times = {0: [], 1: []}  # type: dict[int, list[float]]
    for t, i in spikes(network(model, size=2), until=0.5):
        times[i].append(t)
    np.testing.assert_allclose(np.diff(times[0]), PERIOD, rtol=1e-11)
    np.testing.assert_allclose(np.diff(times[1]), 0.02 * math.log(3.0) + 0.001, rtol=1e-11)


def test_voltages_between_kicks_are_those_of_the_equation() -> None:
    net = Network(
        [
            Population("in", 1, SpikeInput([[0.004]])),
            Population("lif", 1, LIF(drive=0.5)),
            Population("mixed", 1, LIF(tau=0.02, drive=0.5)),
            Population("qif", 1, QIF(drive=-1.0, initial=-0.5)),
        ],
        [Projection("in", name, [[0.3]]) for name in ("lif", "mixed", "qif")],
    )
    simulator = Simulator(net)
    simulator.run(until=0.01)
    kicked = 0.5 * (1 - math.exp(-1.0)) + 0.3 * math.exp(-0.6)
    assert simulator.voltages("lif")[0] == pytest.approx(kicked, abs=1e-14)  # type: ignore[attr-defined]
    kicked = 0.5 * (1 - math.exp(-0.5)) + 0.3 * math.exp(-0.3)
    assert simulator.voltages("mixed")[0] == pytest.approx(kicked, abs=1e-14)  # type: ignore[attr-defined]
    v = -math.tanh(math.atanh(0.5) + 0.4) + 0.3
    v = -math.tanh(math.atanh(-v) + 0.6)
    assert simulator.voltages("qif")[0] == pytest.approx(v, abs=1e-14)  # type: ignore[attr-defined]
    with pytest.raises(UnknownNameError, match="nobody"):
        simulator.voltages("nobody")  # type: ignore[attr-defined]


def test_an_autapse_resets_first_and_kicks_then() -> None:
    times = [t for t, _ in spikes(network(ALONE, [[0.5]]), count=3)]
    again = 0.01 * math.log(0.7 / 0.2)
    np.testing.assert_allclose(times, [PERIOD, PERIOD + again, PERIOD + 2 * again], rtol=1e-12)


def test_simultaneous_spikes_go_in_the_order_of_id() -> None:
    assert [i for _, i in spikes(network(ALONE, size=4), count=8)] == [0, 1, 2, 3] * 2


def test_a_cascade_at_one_instant_takes_the_lowest_id_that_is_due() -> None:
    # 3 reaches the threshold, and brings 1 and 4 with it; 1 brings 0, which goes before 4.
    weights = np.zeros((5, 5))
    weights[1, 3] = weights[4, 3] = weights[0, 1] = 2.0
    model = LIF(drive=[0.5, 0.5, 0.5, 1.2, 0.5])
    found = spikes(network(model, weights), count=4)
    assert [i for _, i in found] == [3, 1, 0, 4]
    assert len({t for t, _ in found}) == 1


def test_inhibition_at_the_same_instant_holds_a_spike_back() -> None:
    found = spikes(network(ALONE, [[0.0, 0.0], [-0.1, 0.0]]), count=2)
    assert found[0] == (pytest.approx(PERIOD), 0)
    assert found[1][0] > found[0][0] or found[1][1] == 0


def test_a_runaway_is_reported_not_run() -> None:
    with pytest.raises(SimulationError, match=r"runaway: more than 1000 spikes .* population 'n'"):
        spikes(network(ALONE, [[2.0]]))


@pytest.mark.parametrize("kicks", ["lost", "kept"])
@pytest.mark.parametrize("tau", [0.01, [0.01, 0.02]])
def test_kicks_in_refractoriness(kicks: str, tau: Any) -> None:
    model = LIF(tau, [1.2, 0.5], refractory=0.004, refractory_kicks=kicks)
    net = Network(
        [Population("in", 1, SpikeInput([[PERIOD + 0.001]])), Population("n", 2, model)],
        [Projection("in", "n", [[0.3], [0.0]])],
    )
    times = [t for t, _ in spikes(net, count=2)]
    start = 0.3 * math.exp(-0.3) if kicks == "kept" else 0.0
    expected = PERIOD + 0.004 + 0.01 * math.log((1.2 - start) / 0.2)
    np.testing.assert_allclose(times, [PERIOD, expected], rtol=1e-12)


def test_a_kick_at_the_end_of_refractoriness_counts() -> None:
    model = LIF(drive=0.5, refractory=0.25)
    net = Network(
        [Population("in", 1, SpikeInput([[0.25, 0.5]])), Population("n", 1, model)],
        [Projection("in", "n", [[2.0]])],
    )
    # exp(0.5 / tau) is rounded, so the end is taken from the other clock
    other = Network(
        [net["in"], net["n"], Population("q", 1, QIF(drive=-1.0))],
        net.projections,
    )
    assert [t for t, _ in spikes(other, until=1.0)] == [0.25, 0.5]


@pytest.mark.parametrize("extra", [[], [Population("q", 1, QIF(drive=-1.0))]])
def test_delays_of_projections_and_of_synapses(extra: list[Population]) -> None:
    populations = [
        Population("in", 1, SpikeInput([[0.01]])),
        Population("n", 3, LIF(drive=0.5)),
        *extra,
    ]
    kicks = [[2.0], [2.0], [2.0]]
    for delay, expected in (
        (0.003, [(0.013, 1), (0.013, 2), (0.013, 3)]),
        ([[0.004], [0.0], [0.002]], [(0.01, 2), (0.012, 3), (0.014, 1)]),
    ):
        net = Network(populations, [Projection("in", "n", kicks, delay_seconds=delay)])
        found = spikes(net, until=1.0)
        assert [i for _, i in found] == [i for _, i in expected]
        np.testing.assert_allclose([t for t, _ in found], [t for t, _ in expected], rtol=1e-12)


def test_many_spikes_may_be_on_their_way() -> None:
    net = network(LIF(drive=1e3), [[0.0, -1e-9], [-1e-9, 0.0]], delay_seconds=0.5)
    engine = CrossingEngine(compile_spiking(net))
    engine.run(0.4, 1 << 20)
    assert engine.totals[0].tolist()[1:4] == [engine.totals[0, 0], 0, 0]
    assert engine.totals[0, 1] > 50_000
    engine.run(0.6, 1 << 20)
    assert engine.totals[0, 3] > 10_000


def test_silence_and_no_synapses() -> None:
    engine = CrossingEngine(compile_spiking(network(LIF(drive=0.0), [[-1.0]])))
    assert engine.peek() == math.inf
    assert engine.run(math.inf, 5)[0].size == 0
    assert engine.status is Status.QUIET
    assert engine.run(1e6, 5)[0].size == 0
    assert engine.now == 1e6
    assert spikes(network(QIF(drive=0.0, initial=-1.0)), until=10.0) == []


def test_rare_input_far_apart_is_met_in_time() -> None:
    net = Network(
        [
            Population("in", 1, SpikeInput([[0.5, 1000.0, 1000.001]])),
            Population("n", 1, LIF(drive=0.5)),
        ],
        [Projection("in", "n", [[0.4]])],
    )
    found = spikes(net, until=2000.0)
    assert found == [(pytest.approx(1000.001, abs=1e-9), 1)]
    engine = CrossingEngine(compile_spiking(net))
    engine.run(1000.0005, 5)
    assert engine.voltages()[1] == pytest.approx(0.5 + 0.4 * math.exp(-0.05), abs=1e-9)


def test_poisson_sources_keep_their_rates_and_seeds() -> None:
    def recorded(seed: int) -> dict[str, Any]:
        net = Network(
            [
                Population("a", 3, PoissonInput([50.0, 0.0, 200.0], seed)),
                Population("n", 1, LIF(drive=0.0)),
            ],
            [Projection("a", "n", [[0.0, 0.0, 0.01]])],
        )
        recorder = EventRecorder()
        simulator = Simulator(net, [recorder])
        simulator.run(until=40.0)
        assert simulator.totals.acs.tolist()[0] == 0
        events = recorder.to_arrays()
        assert simulator.totals.events[0] == events["time"].size
        return events

    events = recorded(1)
    counts = np.bincount(events["neuron"], minlength=3)
    assert abs(counts[0] - 2000) < 5 * math.sqrt(2000)
    assert counts[1] == 0
    assert abs(counts[2] - 8000) < 5 * math.sqrt(8000)
    gaps = np.diff(events["time"])
    assert (gaps >= 0.0).all()
    assert abs(gaps.std() / gaps.mean() - 1.0) < 0.05
    np.testing.assert_array_equal(recorded(1)["time"], events["time"])
    assert recorded(2)["time"][0] != events["time"][0]


def test_poisson_blocks_join_without_a_seam() -> None:
    plan = compile_spiking(Network([Population("a", 2, PoissonInput(1e5))], []))
    first, second = plan.external(0), plan.external(1)
    assert abs(first[0].size - BLOCK) < 5 * math.sqrt(BLOCK)
    assert first[2] == plan.block_seconds
    assert (first[0] < first[2]).all()
    assert (second[0] >= first[2]).all()
    engine = CrossingEngine(plan)
    engine.run(1.2 * first[2], 1)
    times, ids = engine.external()
    assert times.size == first[0].size + int((second[0] < 1.2 * first[2]).sum())
    assert engine.external()[0].size == 0
    assert ids.max() == 1


RNG = np.random.default_rng(7)
NOISY = Network(
    [
        Population("noise", 4, PoissonInput(300.0, 5)),
        Population("n", 20, LIF(drive=RNG.uniform(0.8, 1.4, 20), refractory=0.001)),
        Population("q", 5, QIF(drive=0.3)),
    ],
    [
        Projection("noise", "n", RNG.uniform(0.0, 0.3, (20, 4))),
        Projection("n", "n", RNG.normal(0.0, 0.1, (20, 20)), delay_seconds=0.0015),
        Projection("n", "q", RNG.normal(0.0, 0.2, (5, 20)).astype(np.float32)),
        Projection("q", "n", np.full((20, 5), -0.1)),
    ],
)


def test_a_checkpoint_goes_on_bit_for_bit(tmp_path: Path) -> None:
    recorder = EventRecorder()
    simulator = Simulator(NOISY, [recorder])
    simulator.run(until=0.5)
    simulator.get_state().save(tmp_path / "state.safetensors")
    simulator.run(until=1.0)
    whole = recorder.to_arrays()
    later = EventRecorder()
    other = Simulator(NOISY, [later])
    other.set_state(SimulatorState.load(tmp_path / "state.safetensors"))
    other.run(until=1.0)
    rest = later.to_arrays()
    n = rest["time"].size
    assert 0 < n < whole["time"].size
    for name in ("time", "neuron", "population", "step"):
        np.testing.assert_array_equal(rest[name], whole[name][-n:])
    np.testing.assert_array_equal(other.totals.table, simulator.totals.table)
    with pytest.raises(InputError, match="another network"):
        Simulator(network(ALONE)).set_state(other.get_state())
    (tmp_path / "damaged").write_bytes(b"nothing")
    with pytest.raises(FileFormatError, match="damaged"):
        SimulatorState.load(tmp_path / "damaged")


def test_hooks_see_bins_that_add_up(tmp_path: Path) -> None:
    counters, events = CounterRecorder(), EventRecorder()
    energy = EnergyHook(load_profile("loihi"))
    with ParquetRecorder(tmp_path / "run") as parquet:
        simulator = Simulator(NOISY, [counters, events, energy, parquet], dt=0.01)
        simulator.run(until=0.3)
    assert counters.table.shape[0] == 30
    np.testing.assert_array_equal(counters.table.sum(axis=0), simulator.totals.table)
    arrays = events.to_arrays()
    np.testing.assert_array_equal(arrays["step"], np.floor(arrays["time"] / 0.01 + 1e-9))
    per_bin = np.bincount(arrays["step"], minlength=30)
    np.testing.assert_array_equal(per_bin, counters.table[:, :, 1].sum(axis=1))
    assert energy.joules.shape == (30, 3)
    assert (arrays["value"] == 1.0).all()
    trace = Trace(tmp_path / "run")
    np.testing.assert_array_equal(trace.events.to_numpy(["time"])["time"], arrays["time"])
    assert trace.step_seconds == 0.01
    plain = Simulator(NOISY)
    plain.run(until=0.3)
    np.testing.assert_array_equal(plain.totals.table, simulator.totals.table)
    assert plain.counters.synops == plain.totals.synops


def test_chosen_populations_go_to_disk(tmp_path: Path) -> None:
    with ParquetRecorder(tmp_path / "run", populations=["q"]) as parquet:
        simulator = Simulator(NOISY, [parquet], dt=0.01)
        simulator.run(until=0.5)
    found = Trace(tmp_path / "run").events.to_numpy(["population"])["population"]
    assert (found == 2).all()
    assert found.size == simulator.totals.events[2]
    with pytest.raises(InputError, match="nobody"):
        Simulator(NOISY, [ParquetRecorder(tmp_path / "other", populations=["nobody"])])


def test_run_stops_where_it_is_told_to() -> None:
    simulator = Simulator(NOISY)
    assert simulator.run(spikes=10).events[1:].sum() == 10
    assert simulator.run(until=1.0, spikes=3).events[1:].sum() == 3
    simulator.reset()
    simulator.run(until=5.0, stop=lambda counters: bool(counters.events[1] >= 3))
    assert simulator.now < 1.0  # type: ignore[attr-defined]

    class Enough(Hook):
        def on_attach(self, simulator: Any) -> None:
            self.simulator = simulator

        def on_step(self, step: int, counters: Counters) -> None:
            if step == 4:
                self.simulator.stop()

    simulator = Simulator(NOISY, [Enough()], dt=0.01)
    simulator.run(until=1.0)
    assert simulator.step_index == 5
    assert simulator.peek() >= 0.05
    quiet = Simulator(network(LIF(drive=0.0)), [CounterRecorder()])
    assert quiet.run(spikes=5).events.sum() == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.run(), "say when to stop"),
        (lambda s: s.run([[1.0]]), "no inputs"),
        (lambda s: s.run(until=math.nan), "until"),
        (lambda s: s.run(until=math.inf), "is infinite"),
        (lambda s: s.run(spikes=-1), "spikes"),
    ],
)
def test_a_run_that_makes_no_sense_is_refused(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(Simulator(network(ALONE)))


def test_what_does_not_fit_continuous_time_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="no steps"):
        Simulator(network(ALONE)).step([1.0])
    with pytest.raises(InputError, match="runs in steps"):
        Simulator(Network.from_arrays([[[1.0]]])).run(until=1.0)
    with pytest.raises(UnknownNameError, match="'levels'"):
        Simulator(network(ALONE), engine="levels")
    with pytest.raises(InputError, match="dt is 0"):
        Simulator(network(ALONE), dt=0.0)
    with pytest.raises(NetworkError, match="continuous"):
        Network([Population("x", 1, Input()), Population("n", 1, ALONE)], [])
    with pytest.raises(NetworkError, match="delay_seconds"):
        network(ALONE, [[1.0]], delay=1)
    stepped = [Population("x", 1, Input()), Population("y", 1, Delta())]
    with pytest.raises(NetworkError, match="needs continuous time"):
        Network(stepped, [Projection("x", "y", [[1.0]], delay_seconds=0.1)])
    with pytest.raises(NetworkError, match="input population"):
        Network(
            [Population("p", 1, PoissonInput(1.0)), Population("n", 1, ALONE)],
            [Projection("n", "p", [[1.0]])],
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LIF(tau=0.0), "tau"),
        (lambda: LIF(reset=1.0), "below the threshold"),
        (lambda: LIF(refractory=-1.0), "refractory"),
        (lambda: LIF(refractory_kicks="some"), "'lost' or 'kept'"),
        (lambda: LIF(drive=0.5).at_phase(0.5), "no cycle"),
        (lambda: LIF().at_phase(1.0), "phase"),
        (lambda: QIF(drive=-1.0).at_phase(0.5), "no cycle"),
        (lambda: QIF(threshold=math.nan), "threshold"),
        (lambda: EIF(drive=0.8), "knee - slope"),
        (lambda: EIF(slope=0.0), "slope"),
        (lambda: EIF(tau=[0.1]), "one finite number"),  # type: ignore[arg-type]
        (lambda: PoissonInput(-1.0), "rate"),
        (lambda: PoissonInput(1.0, -1), "seed"),
        (lambda: SpikeInput([[-1.0]]), ">= 0"),
        (lambda: SpikeInput([1.0], [0.5]), "whole numbers"),
        (lambda: Population("s", 1, SpikeInput([1.0], [3])), "neuron 3 spikes in a population"),
        (lambda: Projection("a", "b", [[1.0]], delay_seconds=-1.0), "delay_seconds"),
        (lambda: Projection("a", "b", [[1.0]], delay_seconds=[0.1, 0.2]), "shape"),
        (lambda: Rows((2, 1), np.array([0, 1]), np.array([2], np.uint32), 1.0), "target 2 of 2"),
        (lambda: Rows((2, 1), np.array([0, 2]), np.array([1], np.uint32), 1.0), "ascend"),
        (lambda: Rows((2, 1), np.array([0, 1]), np.array([1]), 1.0), "uint32"),
        (lambda: Rows((2, 1), np.array([0, 1]), np.array([1], np.uint32), math.inf), "weights"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(make: Any, message: str) -> None:
    with pytest.raises(NetworkError, match=re.escape(message)):
        make()


def test_rows_are_any_other_connectivity(rng: np.random.Generator) -> None:
    pointers = np.array([0, 2, 2, 5])
    targets = np.array([1, 0, 3, 0, 3], np.uint32)
    for weights in (0.5, rng.normal(size=5).astype(np.float32), np.array([1.0, 0, 2, 0, 3])):
        rows = Rows((4, 3), pointers, targets, weights)
        dense = np.zeros((4, 3))
        np.add.at(dense, (targets, [0, 0, 2, 2, 2]), weights)
        np.testing.assert_array_equal(rows.to_dense(), dense)
        x = rng.normal(size=3)
        np.testing.assert_allclose(rows @ x, dense @ x)
        assert rows.n_synapses == np.count_nonzero(np.broadcast_to(weights, 5))
        p, t, w = rows.rows()
        again = np.zeros((4, 3))
        np.add.at(again, (t, np.repeat([0, 1, 2], np.diff(p))), w)
        np.testing.assert_allclose(again, dense)
    assert Rows((4, 3), pointers, targets, 0.0).n_synapses == 0


def test_one_projection_is_compiled_without_a_copy() -> None:
    pointers, targets = np.array([0, 1, 2]), np.array([1, 0], np.uint32)
    plan = compile_spiking(network(ALONE, Rows((2, 2), pointers, targets, -0.1)))
    assert plan.targets is targets
    assert plan.pointers is pointers
    assert plan.weights.size == 0
    assert plan.row_weight.tolist() == [-0.1, -0.1]
    assert plan.degrees.tolist() == [[1], [1]]


def test_degrees_of_rows_into_populations() -> None:
    plan = compile_spiking(NOISY)
    assert not plan.one_row  # n reaches q at once and itself later
    total = {q.name: q.weights.n_synapses for q in NOISY.projections}
    assert plan.degrees.sum(axis=0).tolist() == [
        0,
        total["noise->n"] + total["n->n"] + total["q->n"],
        total["n->q"],
    ]


@settings(max_examples=10)
@given(spiking_networks(kinds=("lif",)))
def test_energy_and_rasters_take_a_spiking_run(net: Network) -> None:
    from eventsim.analysis.raster import raster

    recorder = EventRecorder()
    Simulator(net, [recorder]).run(until=0.02)
    raster(recorder.to_arrays(), net, steps=20)


def test_what_exceeds_the_threshold_is_lost_and_inhibition_can_still_come_first() -> None:
    """Neuron 3 is kicked far above threshold by 1, then inhibited by 2, before its turn comes."""
    sources = Population("in", 1, SpikeInput([0.001], [0]))
    first = Population("first", 2, LIF(0.01, 1.2, 1.0, 0.0))
    last = Population("last", 1, LIF(0.01, 1.2, 1.0, 0.0))
    network = Network(
        (sources, first, last),
        (
            Projection("in", "first", np.array([[2.0], [2.0]])),
            Projection("first", "last", np.array([[3.0, -0.3]])),
        ),
    )
    times, ids = CrossingEngine(compile_spiking(network)).run(0.0011, 10)
    assert ids.tolist() == [1, 2]
    np.testing.assert_allclose(times, 0.001)


def test_a_neuron_that_has_just_spiked_does_not_go_beyond_its_threshold_either() -> None:
    sources = Population("in", 1, SpikeInput([0.001], [0]))
    cells = Population("cells", 3, LIF(0.01, 1.2, 1.0, 0.0))
    weights = np.zeros((3, 3))
    weights[0, 1], weights[0, 2] = 3.0, -0.3  # 0 spikes first, is then excited, then inhibited
    network = Network(
        (sources, cells),
        (Projection("in", "cells", np.full((3, 1), 2.0)), Projection("cells", "cells", weights)),
    )
    _, ids = CrossingEngine(compile_spiking(network)).run(0.0011, 10)
    # After the spike of 1 neuron 0 is due again, as the lowest id at once.
    assert ids.tolist() == [1, 2, 1, 3]
