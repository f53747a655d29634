"""The window engines through a network's description, against the slow twins of their kernels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels.window_oracle import Lif, Qif

from eventsim.bench_spiking import Balanced, SparseProp
from eventsim.errors import InputError, SimulationError
from eventsim.kernels import window_lif as lif
from eventsim.kernels.status import ACS, EVENTS
from eventsim.network import Network, Population, Projection
from eventsim.spiking_compile import SpikingEngine, SpikingPlan, Status, compile_spiking
from eventsim.spiking_engines import CrossingEngine
from eventsim.spiking_neurons import EIF, LIF, QIF, PoissonInput, SpikeInput
from eventsim.spiking_window import WindowLIF, WindowQIF

TAU = 0.02


def _connected(rng: np.random.Generator, shape: tuple[int, int], low: float, high: float) -> Any:
    weights = rng.uniform(low, high, shape).astype(np.float32)
    return np.where(rng.random(shape) < 0.3, weights, 0.0)


@st.composite
def lif_networks(draw: st.DrawFn) -> Network:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    same = draw(st.booleans())
    high = draw(st.sampled_from([0.0, 0.3]))
    rest = draw(st.sampled_from([0.0, 0.004]))
    kicks = draw(st.sampled_from(["lost", "kept"]))
    delay = draw(st.sampled_from([0.0, 0.0015, 0.05]))
    sizes = {"one": draw(st.integers(1, 90)), "two": draw(st.integers(1, 5))}
    populations = []
    for name, size in sizes.items():
        drive, threshold, reset = 1.2, 1.0, 0.1
        if not same:
            drive, threshold, reset = (
                rng.uniform(1.1, 1.4, size),
                rng.uniform(0.9, 1.0, size),
                rng.uniform(-0.5, 0.5, size),
            )
        neuron = LIF(TAU, drive, threshold, reset, rest, kicks, rng.uniform(-0.5, 0.9, size))
        populations.append(Population(name, size, neuron))
    n_outside = draw(st.integers(0, 2))
    if n_outside:
        times = rng.uniform(0, 0.2, 10)
        model = SpikeInput(times, rng.integers(0, n_outside, 10))
        populations.insert(draw(st.integers(0, 2)), Population("outside", n_outside, model))
        sizes["outside"] = n_outside
    return Network(
        tuple(populations),
        tuple(
            Projection(
                a,
                b,
                _connected(rng, (sizes[b], sizes[a]), -0.3, high),
                delay_seconds=0.003 if a == "outside" else delay,
            )
            for a in sizes
            for b in ("one", "two")
        ),
    )


def _twin(network: Network, plan: SpikingPlan) -> tuple[Lif, dict[int, int]]:
    """The network for `Lif`, which has its sources last; and its ids of the engine's."""
    order: list[int] = []
    b: list[float] = []
    ratio: list[float] = []
    above: list[float] = []
    outside: list[tuple[float, int]] = []
    for k, p in enumerate(network.populations):
        if isinstance(p.neuron, LIF):
            order += range(plan.start[k], plan.start[k + 1])
            delta = p.parameter("drive") - p.parameter("threshold")
            above += delta.tolist()
            b += ((p.parameter("drive") - p.parameter("initial")) / delta).tolist()
            ratio += ((p.parameter("drive") - p.parameter("reset")) / delta).tolist()
    order += [i for i in range(plan.n_neurons) if i not in set(order)]
    place = {i: k for k, i in enumerate(order)}
    rows = []
    for i in order:
        s = slice(plan.pointers[i], plan.pointers[i + 1])
        rows.append(
            [
                (place[int(j)], -float(w) / above[place[int(j)]])
                for j, w in zip(plan.targets[s], plan.weights[s], strict=True)
            ]
        )
    first = next(p.neuron for p in network.populations if isinstance(p.neuron, LIF))
    times, ids, _ = plan.external(0)
    outside = [(float(t) + 0.003, place[int(i)]) for t, i in zip(times, ids, strict=True)]
    delay = max(
        (q.delay_seconds for q in network.projections if q.source != "outside"), default=0.0
    )
    mode = {"lost": lif.LOSES, "kept": lif.KEEPS}[first.refractory_kicks]
    return Lif(
        b,
        ratio,
        rows,
        delay=math.exp(delay / TAU) if delay else 0.0,
        refractory=mode if first.refractory else lif.NO_REST,
        rest=math.exp(first.refractory / TAU),
        external=outside,
        tau=TAU,
        burst=plan.burst,
    ), {k: i for i, k in place.items()}


@given(lif_networks(), st.lists(st.integers(0, 60), max_size=3))
def test_lif_networks_spike_as_by_a_scan(network: Network, pieces: list[int]) -> None:
    assert WindowLIF.supports(network) is None
    plan = compile_spiking(network)
    twin, back = _twin(network, plan)
    spikes = 60
    expected, synapses, ending = twin.run(spikes)
    engine = WindowLIF(plan)
    times, ids = [np.zeros(0)], [np.zeros(0, np.int64)]
    if ending == lif.RUNAWAY:
        with pytest.raises(SimulationError, match="excitation"):
            engine.run(math.inf, spikes)
        return
    for count in [*np.diff([0, *sorted(pieces)]), spikes - max(pieces, default=0)]:
        first = engine.peek()
        t, i = engine.run(math.inf, int(count))
        assert engine.status is Status.SPIKES
        if t.size:
            assert first <= t[0]
        times.append(t)
        ids.append(i)
    assert np.concatenate(ids).tolist() == [back[i] for _, i in expected]
    np.testing.assert_allclose(
        np.concatenate(times), [TAU * math.log(e) for e, _ in expected], rtol=0, atol=1e-12
    )
    told, _ = engine.external()
    table = engine.totals
    assert table[:, ACS].sum() == synapses
    assert table[:, EVENTS].sum() == spikes + told.size
    volts = engine.voltages()
    assert (volts[~np.isnan(volts)] <= 1.0 + 1e-9).all()


@given(lif_networks(), st.floats(0.0, 0.2))
def test_lif_networks_spike_as_in_the_reference_engine(network: Network, until: float) -> None:
    plan = compile_spiking(network)
    fast, slow = WindowLIF(plan), CrossingEngine(plan)
    try:
        times, ids = slow.run(until, 2000)
    except SimulationError:
        with pytest.raises(SimulationError, match="excitation"):
            fast.run(until, 2000)
        return
    got, who = fast.run(until, 2000)
    assert fast.status is slow.status
    assert who.tolist() == ids.tolist()
    np.testing.assert_allclose(got, times, rtol=0, atol=1e-12)
    for mine, other in zip(fast.external(), slow.external(), strict=True):
        assert np.array_equal(mine, other)
    assert np.array_equal(fast.totals, slow.totals)
    assert fast.peek() == pytest.approx(slow.peek(), abs=1e-12)
    assert fast.now == pytest.approx(slow.now, abs=1e-12)
    np.testing.assert_allclose(fast.voltages(), slow.voltages(), rtol=0, atol=1e-9)


def test_the_next_spike_is_known_while_all_neurons_rest() -> None:
    network = Network(
        (Population("n", 2, LIF(0.01, 1.2, 1.0, 0.0, 0.004, "lost", [0.5, 0.6])),),
        (Projection("n", "n", np.array([[0.0, -0.1], [0.0, 0.0]]), delay_seconds=0.001),),
    )
    plan = compile_spiking(network)
    fast, slow = WindowLIF(plan), CrossingEngine(plan)
    for until in np.arange(0.0, 0.06, 0.0005):
        fast.run(float(until), 100)
        slow.run(float(until), 100)
        assert fast.peek() == pytest.approx(slow.peek(), abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["homogeneous", "mixed weights", "delay and refractory"])
def test_a_million_lif_spikes_come_in_the_order_of_the_reference(variant: str) -> None:
    case = Balanced("lif", 1000, 20, seed=3)
    plan = compile_spiking(case.network(variant))
    fast, slow = WindowLIF(plan), CrossingEngine(plan)
    done, spikes = 0, 1_000_000
    while done < spikes:
        times, ids = slow.run(math.inf, spikes - done)
        got, who = fast.run(math.inf, times.size)
        assert np.array_equal(ids, who)
        assert float(np.abs(got - times).max()) <= 1e-12
        done += times.size
    # E has been renormalised more than 200 times: after 44 time constants each.
    assert fast.now > 200 * 64 * math.log(2.0) * 0.01


def test_the_baseline_of_the_benchmark_simulates_the_same_network() -> None:
    for model, spikes in (("lif", 20_000), ("qif", 300)):
        case = Balanced(model, 500, 20)
        engine = {"lif": WindowLIF, "qif": WindowQIF}[model](compile_spiking(case.network()))
        engine.run(math.inf, 1000)
        baseline = SparseProp(case, case.graph(), engine)
        times, ids = engine.run(math.inf, spikes)
        other_times, other_ids = baseline.run(spikes)
        assert np.array_equal(ids, other_ids)
        np.testing.assert_allclose(times, other_times, rtol=0, atol=1e-10)


def _balanced(model: Any, n: int = 200, delay: float = 0.0) -> Network:
    rng = np.random.default_rng(8)
    poisson = PoissonInput(rate=2e4, seed=4)
    return Network(
        (Population("noise", 3, poisson), Population("cells", n, model)),
        (
            Projection("cells", "cells", _connected(rng, (n, n), -0.05, 0.0), delay_seconds=delay),
            Projection("noise", "cells", _connected(rng, (n, 3), -0.01, 0.01)),
        ),
    )


_START = np.random.default_rng(1).uniform(0.0, 0.9, 200)
MODELS = {
    WindowLIF: LIF(0.01, 1.1, initial=_START, refractory=0.001),
    WindowQIF: QIF(0.01, 0.4, initial=_START),
}


@pytest.mark.parametrize("kind", [WindowLIF, WindowQIF])
@pytest.mark.parametrize("delay", [0.0, 0.002])
def test_how_a_run_is_cut_changes_no_bit(kind: type[SpikingEngine], delay: float) -> None:
    network = _balanced(MODELS[kind], delay=delay)
    assert kind.supports(network) is None
    plan = compile_spiking(network)
    whole, cut = kind(plan), kind(plan)
    times, ids = whole.run(4.0, 1 << 40)
    assert whole.status is Status.TIME
    assert whole.now == 4.0
    outside = whole.external()
    assert outside[0].size > 1.5e5  # more than one block of them
    parts, told = [], []
    for until, count in [(0.3, 10), (0.3, 10**6), (1.0, 77), (1.7, 10**6), (4.0, 10**6)]:
        parts.append(cut.run(until, count))
        told.append(cut.external())
        state = cut.get_state()
        cut = kind(plan)
        cut.set_state(state)
        assert cut.peek() >= cut.now - 1e-12
    assert np.array_equal(np.concatenate([t for t, _ in parts]), times)
    assert np.array_equal(np.concatenate([i for _, i in parts]), ids)
    assert np.array_equal(np.concatenate([t for t, _ in told]), outside[0])
    assert np.array_equal(np.concatenate([i for _, i in told]), outside[1])
    assert np.array_equal(whole.totals, cut.totals)
    assert np.array_equal(whole.voltages(), cut.voltages(), equal_nan=True)
    whole.reset()
    again, _ = whole.run(4.0, 1 << 40)
    assert np.array_equal(again, times)


def test_qif_networks_spike_as_in_extended_precision() -> None:
    rng = np.random.default_rng(2)
    n, drive = 50, 0.25
    weights = _connected(rng, (n, n), -0.2, 0.2)
    volts = rng.normal(size=n)
    volts[:3] = -np.inf
    network = Network(
        (Population("cells", n, QIF(0.01, drive, initial=volts)),),
        (Projection("cells", "cells", weights, delay_seconds=0.002),),
    )
    plan, root = compile_spiking(network), math.sqrt(drive)
    rows = [
        [(int(j), float(weights[j, i]) / root) for j in np.flatnonzero(weights[:, i])]
        for i in range(n)
    ]
    angles = np.arctan(volts / root)
    # The twin counts in half angles: time is the angle over sqrt(I) / tau.
    expected, ids = Qif(angles, rows, delay=0.002 * root / 0.01).run(300)
    engine = WindowQIF(plan)
    times, got = engine.run(math.inf, 300)
    assert got.tolist() == ids.tolist()
    np.testing.assert_allclose(times, (expected * 0.01 / root).astype(float), rtol=0, atol=1e-11)
    assert engine.peek() > engine.now
    np.testing.assert_array_equal(WindowQIF(plan).voltages()[:3], -np.inf)
    np.testing.assert_allclose(WindowQIF(plan).voltages()[3:], volts[3:], rtol=1e-12)


def test_voltages_between_spikes() -> None:
    model = LIF(0.01, 2.0, initial=0.0)
    engine = WindowLIF(compile_spiking(Network((Population("a", 1, model),), ())))
    engine.run(0.005, 10)
    assert engine.voltages()[0] == pytest.approx(2.0 * (1 - math.exp(-0.5)), rel=1e-13)
    assert engine.peek() == pytest.approx(0.01 * math.log(2.0), rel=1e-14)
    assert engine.now == 0.005


@pytest.mark.parametrize(
    ("models", "delays", "reason"),
    [
        ([EIF()], [0.0], "'eif' neurons"),
        ([LIF(0.01), LIF(0.02)], [0.0, 0.0], "different tau"),
        ([LIF(refractory=0.1), LIF()], [0.0, 0.0], "different refractory"),
        ([LIF(refractory_kicks="kept"), LIF()], [0.0, 0.0], "different refractory_kicks"),
        ([LIF(drive=0.5)], [0.0], "drive is not above"),
        ([LIF(), LIF()], [0.0, 0.1], "different delays"),
        ([LIF(tau=1e-6)], [0.1], "time constants"),
        ([LIF(tau=1e-6, refractory=0.1)], [0.0], "time constants"),
    ],
)
def test_what_it_does_not_run(models: list[Any], delays: list[float], reason: str) -> None:
    names = [f"p{k}" for k in range(len(models))]
    network = Network(
        tuple(Population(name, 2, m) for name, m in zip(names, models, strict=True)),
        tuple(
            Projection(name, names[0], np.ones((2, 2)), delay_seconds=d)
            for name, d in zip(names, delays, strict=True)
        ),
    )
    assert reason in str(WindowLIF.supports(network))
    assert WindowQIF.supports(network) is not None


def test_a_state_of_something_else_is_refused() -> None:
    small = WindowLIF(compile_spiking(Network((Population("a", 1, LIF()),), ())))
    large = WindowLIF(compile_spiking(Network((Population("a", 2, LIF()),), ())))
    before = large.run(1.0, 5)[0]
    with pytest.raises(InputError, match="get_state"):
        large.set_state(small.get_state())
    with pytest.raises(InputError, match="get_state"):
        large.set_state((np.zeros(3),))
    large.reset()
    assert np.array_equal(large.run(1.0, 5)[0], before)
