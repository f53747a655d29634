"""NeuroBench's figures against what NeuroBench itself recorded, and by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from neurobench_cases import Case, cases
from scipy import sparse

from eventsim.analysis.neurobench import (
    REGISTERED,
    membrane_updates,
    neurobench_figures,
    synaptic_operations,
)
from eventsim.connectivity import connectivity
from eventsim.dense import DenseForward
from eventsim.network import Network, Projection

RECORDED = json.loads(
    (Path(__file__).parent.parent / "data" / "neurobench.json").read_text(encoding="utf-8")
)


def build(case: Case) -> Network:
    dtype = np.float32 if case.single else np.float64
    return Network.from_arrays(
        [w.astype(dtype) for w in case.weights], case.biases, activation=case.activation
    )


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_equal_to_neurobench(case: Case) -> None:
    theirs = dict(RECORDED["cases"][case.name])
    assert theirs.pop("digest") == case.digest(), "run tests/reference_neurobench.py again"
    registered = {*REGISTERED, case.activation} if case.registered else REGISTERED
    figures = neurobench_figures(
        build(case), case.inputs, batch_size=case.batch_size, registered=registered
    )
    ours = figures.to_dict()
    assert list(ours) == list(theirs)
    for name in ("Footprint", "ParameterCount"):
        assert ours[name] == theirs[name]
    # Whole operations: the means are equal only if the totals are.
    assert ours["SynapticOperations"] == theirs["SynapticOperations"]
    for kind, mean in theirs["SynapticOperations"].items():
        total = sum(
            {"Effective_MACs": s.macs, "Effective_ACs": s.acs, "Dense": s.dense}[kind]
            for s in figures.layers.values()
        )
        assert total == round(mean * figures.samples)
    for name in ("ConnectionSparsity", "ActivationSparsity", "MembraneUpdates"):
        assert ours[name] == pytest.approx(theirs[name], rel=0, abs=1e-9)


def test_the_cases_tell_the_rules_apart() -> None:
    theirs = RECORDED["cases"]
    assert theirs["tanh-registered"]["ActivationSparsity"] > 0.0
    assert theirs["tanh-unregistered"]["ActivationSparsity"] == 0.0
    assert theirs["binary"]["SynapticOperations"]["Effective_ACs"] > 0.0
    batches = theirs["binary-batches"]["SynapticOperations"]
    assert 0.0 < batches["Effective_ACs"] < batches["Effective_MACs"] + batches["Effective_ACs"]
    assert theirs["float32"]["Footprint"] == 4 * theirs["float32"]["ParameterCount"]


def test_spiking_layer_equal_to_neurobench() -> None:
    theirs = RECORDED["spiking"]
    spikes, before = np.array(theirs["inputs"]), np.array(theirs["before"])
    samples = len(spikes)
    assert 0.0 < theirs["ActivationSparsity"] < 1.0
    # A time step is a forward pass of all samples.
    steps = spikes.transpose(1, 0, 2).reshape(-1, spikes.shape[2])
    found = synaptic_operations(connectivity(theirs["weights"], "w"), steps, batch_size=samples)
    assert {
        "Effective_MACs": found.macs / samples,
        "Effective_ACs": found.acs / samples,
        "Dense": found.dense / samples,
    } == theirs["SynapticOperations"]
    updates = membrane_updates(before, theirs["after"])
    assert updates / samples == theirs["MembraneUpdates"]
    assert updates < before.size


def test_by_hand() -> None:
    network = Network.from_arrays([np.array([[1.0, -1.0], [0.0, 2.0]]), np.ones((1, 2))])
    # Hidden: (1, 0), (0, 2), (0, 0).
    x = np.array([[1.0, 0.0], [0.5, 1.0], [0.0, 0.0]])
    one = neurobench_figures(network, x)
    first, last = one.layers.values()
    assert (first.macs, first.acs, first.dense) == (3, 1, 12)
    assert (last.macs, last.acs, last.dense) == (1, 1, 6)
    assert one.activation_sparsity == pytest.approx(4 / 6)
    # In one pass, (0.5, 1) makes MACs of all.
    both = neurobench_figures(network, x, batch_size=3)
    assert (both.effective_macs, both.effective_acs) == (6 / 3, 0.0)
    assert neurobench_figures(network, x, parameter_bytes=4).footprint == 6 * 4


@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_operations_equal_a_plain_count(seed: int, batch_size: int) -> None:
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(5, 4)) * (rng.random((5, 4)) < 0.6)
    x = rng.choice([0.0, 1.0, -1.0, 0.5], size=(12, 4), p=[0.6, 0.2, 0.1, 0.1])
    macs = acs = 0
    for start in range(0, 12, batch_size):
        batch = x[start : start + batch_size]
        count = sum(int(((w != 0) & (row != 0)).sum()) for row in batch)
        if set(batch.ravel()) <= {0.0, 1.0, -1.0}:
            acs += count
        else:
            macs += count
    for weights in (w, sparse.coo_array(w)):
        found = synaptic_operations(connectivity(weights, "w"), x, batch_size)
        assert (found.macs, found.acs, found.dense) == (macs, acs, 240)


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    network = Network.from_arrays([rng.normal(size=(7, 3)), rng.normal(size=(2, 7))])
    x = np.round(rng.normal(size=(50, 3)))
    whole = neurobench_figures(network, x, batch_size=4)
    monkeypatch.setattr("eventsim.analysis.neurobench._CHUNK", 10)
    assert neurobench_figures(network, x, batch_size=4) == whole


def test_effective_macs_are_those_of_the_dense_pass(rng: np.random.Generator) -> None:
    network = Network.from_arrays([rng.normal(size=(6, 4)), rng.normal(size=(2, 6))])
    x = rng.normal(size=(20, 4))
    hidden = DenseForward(network).activations_over(x)["hidden1"]
    figures = neurobench_figures(network, x)
    assert figures.effective_macs * 20 == 20 * 24 + 2 * np.count_nonzero(hidden)


def plain() -> Network:
    return Network.from_arrays([np.ones((2, 3))])


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (
            (plain(), np.ones((4, 2))),
            {},
            r"'inputs': have shape \(4, 2\); give \(samples >= 1, 3\)",
        ),
        ((plain(), np.ones((0, 3))), {}, "samples >= 1"),
        ((plain(), np.ones((4, 3))), {"batch_size": 0}, "'batch_size': is 0"),
    ],
)
def test_bad_input(arguments: tuple[Any, ...], options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        neurobench_figures(*arguments, **options)


def test_delays_are_refused() -> None:
    network = plain()
    late = Network(network.populations, (Projection("input", "output", np.ones((2, 3)), delay=1),))
    with pytest.raises(ValueError, match=r"has delays \(input->output\)"):
        neurobench_figures(late, np.ones((2, 3)))


def test_arrays_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match=r"have shape \(2, 2\); give \(samples, 3\)"):
        synaptic_operations(connectivity(np.ones((2, 3)), "w"), np.ones((2, 2)))
    with pytest.raises(ValueError, match="have shapes"):
        membrane_updates([[0.0]], [[0.0], [1.0]])
    none = synaptic_operations(connectivity(np.ones((2, 3)), "w"), np.ones((0, 3)))
    assert (none.macs, none.acs, none.dense) == (0, 0, 0)
