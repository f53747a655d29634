"""Convolutions and pools against loops, dense matrices and their unrolled synapses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventsim import files
from eventsim.compile import compile
from eventsim.convolution import AveragePool, Convolution, Local, MaxWindow, Window
from eventsim.dense import DenseForward
from eventsim.errors import FileFormatError, NetworkError, UnsupportedError
from eventsim.network import Network, Population, Projection
from eventsim.neurons import Delta, Input, MaxPool
from eventsim.simulator import Simulator
from eventsim.trace import CounterRecorder, EventRecorder
from tests.conv_strategies import convolutions, frames, networks, unrolled, windows


def naive(weights: Local) -> np.ndarray:
    """The matrix of a window, by loops over positions and taps."""
    w = weights.window
    height, width, n_in = w.source
    n_out, groups = weights.n_channels, weights.groups
    kernel = weights.weights if isinstance(weights, Convolution) else None
    matrix = np.zeros((*w.target, n_out, height, width, n_in))
    for oy in range(w.target[0]):
        for ox in range(w.target[1]):
            for ky in range(w.size[0]):
                for kx in range(w.size[1]):
                    y = oy * w.stride[0] - w.padding[0] + ky * w.dilation[0]
                    x = ox * w.stride[1] - w.padding[1] + kx * w.dilation[1]
                    if not (0 <= y < height and 0 <= x < width):
                        continue
                    for c in range(n_in):
                        group = c // (n_in // groups)
                        for k in range(n_out // groups):
                            value = (
                                kernel[ky, kx, c, k]
                                if kernel is not None
                                else 1.0
                                if isinstance(weights, MaxWindow)
                                else 1.0 / (w.size[0] * w.size[1])
                            )
                            matrix[oy, ox, group * (n_out // groups) + k, y, x, c] = value
    return matrix.reshape(weights.shape)


@given(convolutions(), st.integers(0, 2**32 - 1))
def test_any_convolution_is_the_matrix_of_its_loops(weights: Convolution, seed: int) -> None:
    matrix = naive(weights)
    np.testing.assert_array_equal(weights.to_dense(), matrix)
    assert weights.n_synapses == np.count_nonzero(matrix)
    np.testing.assert_array_equal(weights.fan_out(), np.count_nonzero(matrix, axis=0))
    full = naive(weights.with_weights(np.ones_like(weights.weights)))
    assert weights.n_positions == weights.dense_macs == np.count_nonzero(full)
    x = np.random.default_rng(seed).normal(size=(weights.shape[1], 3))
    np.testing.assert_allclose(weights @ x, matrix @ x, atol=1e-12)
    np.testing.assert_allclose(weights @ x[:, 0], matrix @ x[:, 0], atol=1e-12)
    torch_order = weights.to_torch_weights()
    again = Convolution.from_torch_weights(
        torch_order, weights.window.source, weights.window.stride, weights.window.padding,
        weights.window.dilation, weights.groups,
    )  # fmt: skip
    np.testing.assert_array_equal(again.weights, weights.weights)


@given(st.data())
def test_any_pool_is_the_matrix_of_its_loops(data: st.DataObject) -> None:
    source = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3)))
    window = data.draw(windows(source, plain=True))
    x = np.random.default_rng(0).normal(size=(int(np.prod(source)), 2))
    average, largest = AveragePool(window), MaxWindow(window)
    np.testing.assert_allclose(average.to_dense(), naive(average))
    np.testing.assert_allclose(average @ x, naive(average) @ x, atol=1e-13)
    for weights in (average, largest):
        mask = naive(weights) != 0
        assert weights.n_synapses == weights.n_positions == np.count_nonzero(mask)
        np.testing.assert_array_equal(weights.fan_out(), mask.sum(axis=0))
        assert weights.n_parameters == weights.n_zeros == 0
    expected = np.where(mask[:, :, np.newaxis], x, -np.inf).max(axis=1)
    np.testing.assert_array_equal(largest @ x, expected)
    assert largest.dense_macs == 0


def test_equals_torch() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra 'train'")
    rng = np.random.default_rng(1)
    for source, kernel, options in (
        ((84, 84, 4), (32, 4, 8, 8), {"stride": (4, 4)}),
        ((9, 7, 6), (4, 3, 3, 2), {"padding": (2, 1), "groups": 2}),
        ((9, 8, 3), (5, 3, 2, 3), {"dilation": (3, 2), "stride": (2, 1), "padding": (1, 2)}),
    ):
        x, weights = rng.normal(size=(2, *source)), rng.normal(size=kernel)
        groups = options.pop("groups", 1)
        built = Convolution.from_torch_weights(weights, source, **options, n_groups=groups)
        expected = torch.nn.functional.conv2d(
            torch.tensor(np.moveaxis(x, -1, 1)), torch.tensor(weights), **options, groups=groups
        )
        got = (built @ x.reshape(2, -1).T).T.reshape(2, *built.target_shape)
        np.testing.assert_allclose(np.moveaxis(got, -1, 1), expected.numpy(), atol=1e-12)


def test_dense_macs_of_the_nature_network() -> None:
    shapes = [((84, 84, 4), (32, 4, 8, 8), 4), ((20, 20, 32), (64, 32, 4, 4), 2),
              ((9, 9, 64), (64, 64, 3, 3), 1)]  # fmt: skip
    macs = [
        Convolution.from_torch_weights(np.ones(kernel, np.float32), source, (s, s)).dense_macs
        for source, kernel, s in shapes
    ]
    assert macs == [3_276_800, 2_654_208, 1_806_336]


@given(st.data())
def test_events_are_those_of_the_unrolled_network(data: st.DataObject) -> None:
    network = data.draw(networks(max_threshold=data.draw(st.sampled_from([0.0, 0.3]))))
    x = data.draw(frames(network))
    tables, traces, outputs = [], [], []
    for form in (network, unrolled(network)):
        counters, events = CounterRecorder(), EventRecorder()
        simulator = Simulator(form, [counters, events], engine="reference")
        outputs.append(simulator.run(x))
        tables.append(counters.table)
        traces.append(events.to_arrays())
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_array_equal(tables[0], tables[1])
    for key, values in traces[0].items():
        np.testing.assert_array_equal(values, traces[1][key])


@given(st.data())
def test_outputs_at_threshold_zero_are_those_of_the_dense_forward_pass(
    data: st.DataObject,
) -> None:
    network = data.draw(networks())
    x = data.draw(frames(network))
    expected = DenseForward(network).run(x)
    scale = np.abs(expected).max() + 1.0
    np.testing.assert_allclose(
        Simulator(network, engine="reference").run(x), expected, atol=1e-11 * scale
    )


@given(data=st.data())
def test_a_file_keeps_every_bit(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    network = data.draw(networks(max_threshold=0.2))
    path = tmp_path_factory.mktemp("files") / "network.safetensors"
    files.save(path, network)
    loaded = files.load(path).network
    for mine, theirs in zip(network.projections, loaded.projections, strict=True):
        assert type(mine.weights) is type(theirs.weights)
        assert mine.weights.dtype == theirs.weights.dtype
        for a, b in zip(mine.weights.rows(), theirs.weights.rows(), strict=True):
            np.testing.assert_array_equal(a, b)
    for p, q in zip(network.populations, loaded.populations, strict=True):
        assert (p.name, p.shape, p.neuron.kind) == (q.name, q.shape, q.neuron.kind)
        np.testing.assert_array_equal(p.parameter("threshold"), q.parameter("threshold"))


def test_a_file_with_another_geometry_is_refused(tmp_path: Path) -> None:
    weights = Convolution(Window((4, 4, 1), (2, 2)), np.ones((2, 2, 1, 2)))
    network = Network(
        (Population("x", 16, Input()), Population("y", 18, Delta())),
        (Projection("x", "y", weights),),
    )
    path = tmp_path / "network.safetensors"
    files.save(path, network)
    raw = path.read_bytes()
    place = raw.rfind(np.array([4, 4, 1, 2, 2], np.int64).tobytes())
    for value in (5, 0, -1, 1 << 40):
        changed = bytearray(raw)
        changed[place : place + 8] = np.array([value], np.int64).tobytes()
        path.write_bytes(bytes(changed))
        with pytest.raises(FileFormatError, match="weights have"):
            files.load(path)


def test_a_compiled_network_is_not_unrolled() -> None:
    weights = Convolution.from_torch_weights(np.ones((32, 4, 8, 8)), (84, 84, 4), (4, 4))
    network = Network(
        (Population("x", weights.shape[1], Input()), Population("y", weights.shape[0], Delta())),
        (Projection("x", "y", weights),),
    )
    assert network.n_synapses == 3_276_800
    assert compile(network).syn_weight.size == 32 * 4 * 64
    with pytest.raises(UnsupportedError, match="361,267,200 weights as one matrix"):
        weights.to_dense()


def test_names_what_does_not_fit() -> None:
    with pytest.raises(NetworkError, match="does not give"):
        Window((4, 4, 1), (5, 5))
    with pytest.raises(NetworkError, match="stride"):
        Window((4, 4, 1), (2, 2), (0, 1))
    with pytest.raises(NetworkError, match="expected"):
        Convolution(Window((4, 4, 2), (2, 2)), np.ones((2, 2, 1, 1)))
    with pytest.raises(NetworkError, match="does not divide"):
        Convolution(Window((4, 4, 3), (2, 2)), np.ones((2, 2, 3, 1)), 2)
    with pytest.raises(NetworkError, match="NaN"):
        Convolution(Window((4, 4, 1), (1, 1)), np.full((1, 1, 1, 1), np.nan))
    x = Population("x", 16, Input(), (4, 4, 1))
    watch = MaxWindow(Window((4, 4, 1), (2, 2), (2, 2)))
    pool, other = Population("y", 4, MaxPool()), Population("y", 4, Delta())
    with pytest.raises(NetworkError, match="not max-pooling"):
        Network((x, other), (Projection("x", "y", watch),))
    with pytest.raises(NetworkError, match="exactly one"):
        Network((x, pool), (Projection("x", "y", watch, 1),))
    with pytest.raises(NetworkError, match="exactly one"):
        Network((x, pool), (Projection("x", "y", np.ones((4, 16))),))
    twisted = Population("x", 16, Input(), (2, 8, 1))
    with pytest.raises(NetworkError, match="has the shape"):
        Network((twisted, pool), (Projection("x", "y", watch),))
