"""The benchmarks measure what they say they do; how fast is nobody's assertion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import eventsim.kernels
from eventsim import bench, bench_scale
from eventsim.network import Network
from eventsim.onnx_bytes import OPERATORS, onnx_model
from tests import bench_constants


@pytest.fixture
def cases() -> list[bench.Case]:
    return bench.cases(None, n_steps=60)


def test_without_agents_the_networks_are_random_and_say_so() -> None:
    said: list[str] = []
    found = bench.cases(None, n_steps=5, report=said.append)
    assert [case.source for case in found] == ["random"] * 3
    assert len(said) == 3
    assert all("no folder of agents" in line for line in said)


def test_a_working_point_prunes_each_layer_and_scales_thresholds(cases: list[bench.Case]) -> None:
    pruned = cases[0].changed(0.9, 0.1, False)
    for before, after in zip(cases[0].network.projections, pruned.network.projections, strict=True):
        share = after.weights.n_synapses / before.weights.n_positions
        assert share == pytest.approx(0.1, abs=0.01)
    assert pruned.network.dense_macs() == cases[0].network.dense_macs()
    hidden = pruned.network["hidden1"].parameter("threshold")
    assert (hidden == hidden[0]).all()
    assert hidden[0] > 0.0
    noise = cases[0].changed(0.0, 0.0, True).inputs
    assert (np.diff(noise, axis=0) != 0.0).all()


def test_a_row_has_times_ratios_and_counts(cases: list[bench.Case]) -> None:
    rows = bench.bench_steps(cases[:1], rounds=2, block=10)
    assert [row["setting"] for row in rows] == list(bench.SETTINGS)
    assert all({"eventsim", "numpy"} <= set(row["microseconds"]) for row in rows)
    assert rows[0]["synops"] > rows[2]["synops"] > 0.0
    assert rows[0]["engine"] == "levels"


def test_sequences_add_the_same_synapses(cases: list[bench.Case]) -> None:
    row = bench.bench_sequences(cases[:1], rounds=1)[1]
    assert row["synops"] > 0.0
    assert row["microseconds"]["scatter_add"] > 0.0


def test_the_bare_scatter_add_ends_with_the_engines_sums() -> None:
    rng = np.random.default_rng(0)
    network = Network.from_arrays([rng.normal(size=(7, 4)), rng.normal(size=(2, 7))])
    x = rng.normal(size=(5, 4))
    from eventsim.simulator import Simulator

    simulator = Simulator(network)
    simulator.run(x)
    _, synapses = bench.scatter_of(network, x)
    assert synapses == simulator.totals.synops


@pytest.mark.parametrize("local", [False, True], ids=["spread", "local"])
def test_growth_has_the_same_counters_at_every_size(tmp_path: Path, local: bool) -> None:
    rows = bench_scale.bench_growth((1_000, 20_000), rounds=1, local=local)
    for name in ("evaluations", "events", "synops"):
        assert rows[0][name] == rows[1][name]
    # Where targets overlap, an evaluation serves several synapses.
    assert (rows[0]["synops"] > 5 * rows[0]["evaluations"]) == local
    bench_scale.figure({"a": rows, "b": rows}, tmp_path / "growth.svg")
    assert (tmp_path / "growth.svg").read_text(encoding="utf-8").rstrip().endswith("</svg>")


def test_compiling_says_how_much_memory_a_synapse_takes() -> None:
    report = bench_scale.compile_large(1_000_000)
    assert report["synapses"] == 1_000_000
    assert report["bytes_per_synapse"] == 6.0


def test_runtimes_that_cannot_run_a_network_are_left_out_and_named(
    cases: list[bench.Case],
) -> None:
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(6, 8)), rng.normal(size=(2, 6))]
    said: list[str] = []
    case = bench.Case("silu", "random", Network.from_arrays(weights, None, "silu"), cases[0].inputs)
    row = bench.bench_case(case, rounds=1, block=10, report=said.append)
    assert list(row["microseconds"]) == ["eventsim"]
    assert len(said) == len(bench.PEERS)
    assert all("activation 'silu'" in text for text in said)


@pytest.mark.parametrize("activation", list(OPERATORS))
def test_the_onnx_model_is_the_network(activation: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra 'onnx'")
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=(300, 5)), rng.normal(size=(3, 300)) / 20]
    biases = [rng.normal(size=300), rng.normal(size=3)]
    model = onnx_model(weights, biases, [activation, "identity"])
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    x = rng.normal(size=(1, 5)).astype(np.float32)
    network = Network.from_arrays(weights, biases, activation)
    from eventsim.dense import DenseForward

    np.testing.assert_allclose(
        session.run(None, {"x": x})[0][0], DenseForward(network).step(x[0]), atol=1e-4
    )


def test_the_lines_that_count_are_where_the_measurement_takes_them_out() -> None:
    folder = Path(eventsim.kernels.__path__[0])
    for name, lines in bench_constants._COUNTING.items():
        text = (folder / name).read_text(encoding="utf-8")
        assert [text.count(line) for line in lines] == [1] * len(lines), name
