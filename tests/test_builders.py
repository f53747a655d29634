"""Random connectivities and example networks: what they promise, and that they are random."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from eventsim import Simulator
from eventsim.builders import (
    balanced,
    bernoulli,
    distance_dependent,
    excitatory_inhibitory,
    fixed_in_degree,
    fixed_out_degree,
    from_networkx,
    from_scipy,
)
from eventsim.connectivity import Rows
from eventsim.errors import InputError, NetworkError


def pairs(rows: Rows) -> set[tuple[int, int]]:
    """(source, target) of every synapse, which must be distinct, targets ascending."""
    sources = np.repeat(np.arange(rows.size[1]), np.diff(rows.pointers))
    found = list(zip(sources.tolist(), rows.targets.tolist(), strict=True))
    assert found == sorted(set(found))
    return set(found)


@pytest.mark.nojit
@given(st.integers(1, 30), st.integers(1, 30), st.floats(0, 1), st.booleans(), st.integers(0, 9))
def test_degrees_are_what_was_asked_for(
    n_sources: int, n_targets: int, share: float, autapses: bool, seed: int
) -> None:
    k = int(share * (n_targets - (not autapses)))
    rows = fixed_out_degree(n_sources, n_targets, k, -0.5, seed=seed, autapses=autapses)
    assert (np.diff(rows.pointers) == k).all()
    found = pairs(rows)
    k = int(share * (n_sources - (not autapses)))
    rows = fixed_in_degree(n_sources, n_targets, k, -0.5, seed=seed, autapses=autapses)
    assert (np.bincount(rows.targets, minlength=n_targets) == k).all()
    found |= pairs(rows)
    found |= pairs(bernoulli(n_sources, n_targets, share, 1.0, seed=seed, autapses=autapses))
    assert autapses or all(i != j for i, j in found)


def test_targets_are_uniform() -> None:
    for build in (fixed_out_degree, fixed_in_degree):
        for k in (5, 60):  # by rejection and by selection
            rows = build(4000, 100 if build is fixed_out_degree else 4000, k, 1.0, autapses=True)
            size = rows.size[0]
            counts = np.bincount(rows.targets, minlength=size)
            if build is fixed_out_degree:
                p = k / 100
                assert abs(counts / 4000 - p).max() < 5 * np.sqrt(p * (1 - p) / 4000)
    rows = bernoulli(2000, 500, 0.1, 1.0, autapses=True)
    counts = np.diff(rows.pointers)
    assert abs(counts.mean() - 50.0) < 5 * np.sqrt(45.0 / 2000)
    assert abs(counts.var() - 45.0) < 10.0
    assert (
        fixed_out_degree(50, 50, 5, 1.0, seed=1).targets.tolist()
        != fixed_out_degree(50, 50, 5, 1.0, seed=2).targets.tolist()
    )


def test_bernoulli_at_its_ends() -> None:
    assert bernoulli(4, 3, 0.0, 1.0).n_synapses == 0
    assert bernoulli(4, 3, 1.0, 1.0, autapses=True).n_synapses == 12
    assert bernoulli(3, 3, 1.0, 1.0).n_synapses == 6
    assert bernoulli(3, 3, 1e-300, 1.0).n_synapses == 0


def test_weights_may_be_drawn() -> None:
    rows = fixed_out_degree(50, 50, 5, lambda random, n: random.normal(1.0, 0.1, n), seed=3)
    assert rows.weights.dtype == np.float32
    assert abs(rows.weights.mean() - 1.0) < 0.05


def test_distances(rng: np.random.Generator) -> None:
    here, there = rng.random((300, 2)), rng.random((200, 2))
    rows = distance_dependent(
        here, there, lambda d: np.where(d < 0.1, 1.0, 0.0), 1.0, reach=0.3, box=1.0, autapses=True
    )
    away = np.abs(here[:, None] - there[None])
    away = np.minimum(away, 1.0 - away)
    near = np.sqrt((away**2).sum(axis=2)) < 0.1
    assert pairs(rows) == set(zip(*(a.tolist() for a in np.nonzero(near)), strict=True))
    some = distance_dependent(here, here, lambda d: np.exp(-d / 0.1), 1.0, reach=0.5)
    assert all(i != j for i, j in pairs(some))


def test_graphs_and_matrices(rng: np.random.Generator) -> None:
    graph = nx.DiGraph()
    graph.add_nodes_from("abc")
    graph.add_edge("a", "b", weight=0.5)
    graph.add_edge("c", "a", weight=-2.0)
    dense = np.zeros((3, 3))
    dense[1, 0], dense[0, 2] = 0.5, -2.0
    np.testing.assert_array_equal(from_networkx(graph).to_dense(), dense)
    np.testing.assert_array_equal(from_networkx(graph, None).to_dense(), dense != 0)
    np.testing.assert_array_equal(
        from_networkx(nx.path_graph(3)).to_dense(), [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    )
    matrix = sparse.random_array((20, 10), density=0.2, rng=rng)
    np.testing.assert_array_equal(from_scipy(matrix).to_dense(), matrix.toarray())
    assert from_scipy(sparse.csr_array(np.eye(4) * 0.5)).uniform
    with pytest.raises(NetworkError, match="NaN"):
        from_scipy(sparse.csr_array([[np.nan]]))


@pytest.mark.parametrize("model", ["lif", "qif", "eif"])
def test_balanced_networks_fire(model: Any) -> None:
    network = balanced(500, 50, model, seed=1)
    assert network.projections[0].weights.uniform
    simulator = Simulator(network)
    counters = simulator.run(spikes=1000)
    assert counters.events[0] == 1000
    assert counters.acs[0] == 50_000
    assert 0.1 < 2.0 / simulator.now < 20.0  # type: ignore[attr-defined]


def test_excitatory_inhibitory_networks_fire() -> None:
    network = excitatory_inhibitory(500, 50, seed=1)
    assert [p.size for p in network.populations] == [400, 100]
    into = {q.name: q.weights for q in network.projections}
    assert (np.bincount(into["excitatory->inhibitory"].indexed().targets) == 40).all()
    simulator = Simulator(network)
    counters = simulator.run(spikes=1000)
    assert (counters.events > 100).all()
    assert 0.1 < 2.0 / simulator.now < 30.0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fixed_out_degree(5, 5, 5, 1.0), "from 0 to 4"),
        (lambda: fixed_in_degree(5, 5, -1, 1.0), "from 0 to 4"),
        (lambda: fixed_out_degree(0, 5, 1, 1.0), "n_sources"),
        (lambda: fixed_out_degree(5, 5, 1, 1.0, seed=-1), "seed"),
        (lambda: bernoulli(5, 5, 1.5, 1.0), "probability"),
        (lambda: distance_dependent([[0.0]], [[0.0]], np.exp, 1.0, reach=0.0), "reach"),
        (lambda: distance_dependent([[2.0]], [[0.0]], np.exp, 1.0, reach=0.1, box=1.0), "box"),
        (lambda: distance_dependent([[0.5]], [[0.0]], np.exp, 1.0, reach=1.0), "0 to 1"),
        (lambda: balanced(5, 5), "neurons - 1 = 4"),
        (lambda: balanced(5, 2, "hh"), "lif, qif, eif"),  # type: ignore[arg-type]
        (lambda: balanced(5, 2, rate=0.0), "rate"),
        (lambda: excitatory_inhibitory(100, 10, g=2.0), "inhibition must prevail"),
        (lambda: excitatory_inhibitory(10, 10), "indegree"),
    ],
)
def test_what_cannot_be_built_is_refused(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
