"""Files: what is saved comes back bit for bit, and what is broken is refused by name."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import safetensors
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy import sparse

from eventsim import files
from eventsim.connectivity import Dense, Sparse
from eventsim.errors import FileFormatError, InputError, OutputError, UnsupportedError
from eventsim.network import Network, Population, Projection
from eventsim.neurons import ACTIVATIONS, Activation, Delta, Input, NeuronModel
from tests.strategies import networks


def small() -> Network:
    """Dense and sparse, both dtypes, a delay, a skip, per-neuron and single parameters."""
    rng = np.random.default_rng(1)
    w = rng.normal(size=(3, 2)).astype(np.float32)
    v = rng.normal(size=(4, 3)) * (rng.random((4, 3)) < 0.5)
    v[0, 0] = 0.25
    return Network(
        (
            Population("in", 2, Input(0.1)),
            Population("a/b", 3, Delta({"name": "leaky_relu", "alpha": 0.1}, [0.1, -0.0, 3e-310])),
            Population("out", 4, Delta("tanh", 1 / 3, np.arange(4) / 7), (2, 2)),
        ),
        (
            Projection("in", "a/b", w, name="first", dense_macs=60),
            Projection("a/b", "out", sparse.csr_array(v)),
            Projection("out", "a/b", rng.normal(size=(3, 4)), delay=3),
        ),
        ("out", "a/b"),
        "näme",
    )


def same_array(a: Any, b: Any) -> None:
    a, b = np.asarray(a), np.asarray(b)
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    assert a.tobytes() == b.tobytes()


def same_network(a: Network, b: Network) -> None:
    assert (a.name, a.outputs, a.ranks) == (b.name, b.outputs, b.ranks)
    for p, q in zip(a.populations, b.populations, strict=True):
        assert (p.name, p.size, p.shape, type(p.neuron)) == (
            q.name,
            q.size,
            q.shape,
            type(q.neuron),
        )
        for f in fields(p.neuron):
            mine, other = getattr(p.neuron, f.name), getattr(q.neuron, f.name)
            assert type(mine) is type(other)
            if isinstance(mine, Activation):
                assert mine == other
            else:
                same_array(mine, other)
    for p, q in zip(a.projections, b.projections, strict=True):
        for name in ("source", "target", "name", "delay", "receptor", "dense_macs"):
            assert getattr(p, name) == getattr(q, name)
        assert type(p.weights) is type(q.weights)
        assert p.weights.shape == q.weights.shape
        for f in fields(p.weights):
            if f.name != "size":
                same_array(getattr(p.weights, f.name), getattr(q.weights, f.name))


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    files.save(path, small(), {"note": {"x": [1, None, True]}}, {"extra": np.arange(3)})
    return path


def test_a_network_comes_back(stored: Path) -> None:
    loaded = files.load(stored)
    same_network(loaded.network, small())
    assert loaded.extra == {"note": {"x": [1, None, True]}}
    assert list(loaded.arrays) == ["extra"]
    same_array(loaded.arrays["extra"], np.arange(3))
    weights = loaded.network.projections[0].weights
    assert isinstance(weights, Dense)
    assert not weights.weights.flags.writeable


@given(networks(max_threshold=0.3))
def test_round_trip_is_exact(tmp_path_factory: pytest.TempPathFactory, network: Network) -> None:
    folder = tmp_path_factory.mktemp("round")
    first, second = folder / "1.safetensors", folder / "2.safetensors"
    files.save(first, network)
    loaded = files.load(first).network
    same_network(loaded, network)
    files.save(second, loaded)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_every_activation_comes_back(tmp_path: Path, name: str) -> None:
    network = Network.from_arrays([np.ones((1, 2))], output_activation=name)
    files.save(tmp_path / "f", network)
    same_network(files.load(tmp_path / "f").network, network)


def test_weights_in_fortran_order_keep_their_places(tmp_path: Path) -> None:
    w = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    files.save(tmp_path / "f", Network.from_arrays([w]), arrays={"w": w, "t": w.T})
    loaded = files.load(tmp_path / "f")
    np.testing.assert_array_equal(loaded.network.projections[0].weights.to_dense(), w)
    np.testing.assert_array_equal(loaded.arrays["t"], w.T)


def test_numpy_values_in_the_extra_fields_become_plain(tmp_path: Path) -> None:
    extra = {"a": np.float32(0.5), "b": np.arange(2), "c": (np.True_, 2)}
    files.save(tmp_path / "f", small(), extra)
    assert files.load(tmp_path / "f").extra == {"a": 0.5, "b": [0, 1], "c": [True, 2]}


def test_a_save_replaces_a_file_at_once(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = stored.read_bytes()

    def fail(*paths: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError, match=r"No space left.*choose another place"):
        files.save(stored, Network.from_arrays([np.ones((1, 1))]))
    assert stored.read_bytes() == before
    assert list(stored.parent.iterdir()) == [stored]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent" / "f", tmp_path):
        with pytest.raises(OutputError, match="cannot be written"):
            files.save(path, small())


@pytest.mark.parametrize(
    "extra, words",
    [
        ({"schema": "mine"}, ["schema"]),
        ({"x": float("nan")}, ["metadata"]),
        ({"x": object()}, ["metadata", "object"]),
        ({"x": {1, 2}}, ["metadata", "set"]),
        ({"x": {(1, 2): 3}}, ["metadata"]),
    ],
)
def test_extra_fields_must_be_plain(
    tmp_path: Path, extra: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        files.save(tmp_path / "f", small(), extra)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_extra_arrays_must_have_a_stored_form(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'data/x'.*complex"):
        files.save(tmp_path / "f", small(), arrays={"x": np.ones(1, complex)})


def test_names_must_be_text(tmp_path: Path) -> None:
    network = Network(
        (Population("\ud800", 1, Input()), Population("y", 1, Delta())),
        (Projection("\ud800", "y", [[1.0]], name="p"),),
    )
    with pytest.raises(InputError, match="names of the network"):
        files.save(tmp_path / "f", network)


@dataclass(frozen=True, eq=False)
class Strange(NeuronModel):
    """A model that files.py does not know."""

    kind: ClassVar[str] = "strange"
    gain: float = 0.5


def strange() -> Network:
    populations = (Population("x", 1, Input()), Population("y", 1, Strange(0.3)))
    return Network(populations, (Projection("x", "y", [[1.0]]),))


def test_other_models_join_by_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedError, match=r"population 'y'.*strange"):
        files.save(tmp_path / "f", strange())
    monkeypatch.setitem(files.NEURONS, "strange", Strange)
    files.save(tmp_path / "f", strange())
    same_network(files.load(tmp_path / "f").network, strange())
    monkeypatch.undo()
    with pytest.raises(FileFormatError, match=r"populations\[1\].model.*strange"):
        files.load(tmp_path / "f")


def test_other_connectivities_are_refused(tmp_path: Path) -> None:
    class Other(Dense):
        """Same kind, another class."""

    weights = Other(np.ones((1, 1)))
    network = Network(
        (Population("x", 1, Input()), Population("y", 1, Delta())),
        (Projection("x", "y", weights),),
    )
    with pytest.raises(UnsupportedError, match="projection 'x->y'"):
        files.save(tmp_path / "f", network)


@pytest.mark.parametrize(
    "pointers, targets, weights",
    [
        ([0, 1, 1], [0], [0.0]),
        ([0, 1, 1], [0], [np.nan]),
        ([0, 2, 2], [1, 0], [1.0, 2.0]),
        ([0, 2, 2], [0, 0], [1.0, 2.0]),
    ],
)
def test_what_could_not_be_read_back_is_not_written(
    tmp_path: Path, pointers: list[int], targets: list[int], weights: list[float]
) -> None:
    broken = Sparse(
        (2, 2), np.array(pointers, np.int64), np.array(targets, np.int64), np.array(weights)
    )
    network = Network(
        (Population("x", 2, Input()), Population("y", 2, Delta())),
        (Projection("x", "y", broken),),
    )
    with pytest.raises(InputError, match="projection 'x->y', field 'weights'"):
        files.save(tmp_path / "f", network)
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize("size, kind", [(2**16, "uint16"), (2**16 + 1, "uint32")])
def test_targets_take_as_little_room_as_they_can(tmp_path: Path, size: int, kind: str) -> None:
    targets = np.array([0, size - 1])
    weights = Sparse((size, 1), np.array([0, 2]), targets, np.array([1.0, 2.0]))
    network = Network(
        (Population("x", 1, Input()), Population("y", size, Delta())),
        (Projection("x", "y", weights),),
    )
    files.save(tmp_path / "f", network)
    header, tensors = take_apart(tmp_path / "f")
    name = "projections/x->y/targets"
    assert tensors[name].dtype.name == kind
    # Files of before hold them as int64.
    put_together(tmp_path / "f", header, {**tensors, name: targets}, announce=True)
    for _ in range(2):
        read = files.load(tmp_path / "f").network.projections[0].weights
        assert isinstance(read, Sparse)
        assert read.targets.dtype == np.int64
        assert not read.targets.flags.writeable
        np.testing.assert_array_equal(read.targets, targets)
        put_together(tmp_path / "f", header, tensors, announce=True)
    # Folders of work go by a fingerprint that is the same as it was then.
    put_together(tmp_path / "f", header, {**tensors, name: targets}, announce=True)
    content = (tmp_path / "f").read_bytes()
    assert files.fingerprint(network) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("targets", [np.array([0.6, 1.7]), np.array([0, 1], np.int32)])
def test_targets_that_are_no_int64_are_not_written(tmp_path: Path, targets: Any) -> None:
    weights = Sparse((2, 1), np.array([0, 2]), targets, np.array([1.0, 2.0]))
    ends = (Population("x", 1, Input()), Population("y", 2, Delta()))
    network = Network(ends, (Projection("x", "y", weights),))
    with pytest.raises(InputError, match="have targets that are"):
        files.save(tmp_path / "f", network)


# What follows is about files that `save` did not write.


def take_apart(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with safe_open(path, framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return json.loads(file.metadata()["eventsim"]), tensors


def put_together(
    path: Path, header: dict[str, Any], tensors: dict[str, np.ndarray], announce: bool = False
) -> None:
    if announce:
        header["tensors"] = {n: [a.dtype.name, list(a.shape)] for n, a in tensors.items()}
    save_file(tensors, path, {"eventsim": json.dumps(header)})


def refuse(path: Path, *words: str) -> None:
    with pytest.raises(FileFormatError) as caught:
        files.load(path)
    message = str(caught.value)
    assert path.name in message
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_an_absent_file_and_a_folder_are_named(tmp_path: Path) -> None:
    refuse(tmp_path / "absent.safetensors", "does not exist")
    refuse(tmp_path, "not a file")


def test_truncated_files_are_refused(stored: Path) -> None:
    content = stored.read_bytes()
    for length in (0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1):
        stored.write_bytes(content[:length])
        refuse(stored, "complete")
    stored.write_bytes(content + b"x")
    refuse(stored, "complete")


@given(data=st.data())
def test_damaged_files_are_refused_or_equal(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damage") / "f.safetensors"
    files.save(path, small())
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        loaded = files.load(path)
    except FileFormatError:
        return
    files.save(path, loaded.network)  # another number or name, but a valid network


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x05K\x01.", b"{}", b"\xff" * 64])
def test_other_formats_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "f.safetensors"
    path.write_bytes(content)
    refuse(path, "not a complete safetensors file")


def test_foreign_safetensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    save_file({"w": np.ones(2)}, path)
    refuse(path, "not one that eventsim saved", "'eventsim'")
    save_file({"w": np.ones(2)}, path, {"format": "pt"})
    refuse(path, "not one that eventsim saved")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"schema": NaN}', "[" * 100_000, "9" * 10_000]
)
def test_metadata_that_are_no_json_object(tmp_path: Path, text: str) -> None:
    path = tmp_path / "f.safetensors"
    save_file({"w": np.ones(2)}, path, {"eventsim": text})
    refuse(path, "'eventsim'", "JSON")


@pytest.mark.parametrize("schema", ["eventsim-policy/2", None, 1, ["eventsim-policy/1"]])
def test_other_schemas_are_refused(stored: Path, schema: Any) -> None:
    header, tensors = take_apart(stored)
    put_together(stored, {**header, "schema": schema}, tensors)
    refuse(stored, "'schema'", repr(schema), "eventsim-policy/1")


FIRST = "projections/first/weights"
SPARSE = "projections/a/b->out"


@pytest.mark.parametrize("name", [FIRST, f"{SPARSE}/pointers", "populations/a/b/bias"])
def test_a_missing_tensor_is_named(stored: Path, name: str) -> None:
    header, tensors = take_apart(stored)
    del tensors[name]
    put_together(stored, header, tensors)
    refuse(stored, name, "is missing")
    put_together(stored, header, tensors, announce=True)
    refuse(stored, name, "is missing")


def test_a_tensor_too_many_is_named(stored: Path) -> None:
    header, tensors = take_apart(stored)
    tensors["populations/in/charm"] = np.ones(2)
    put_together(stored, header, tensors)
    refuse(stored, "populations/in/charm", "not announced")
    put_together(stored, header, tensors, announce=True)
    refuse(stored, "populations/in/charm", "belongs to nothing")


@pytest.mark.parametrize(
    "name, change, words",
    [
        (FIRST, lambda a: a[:2], ["weights", "(2, 2)", "(3, 2)"]),
        (FIRST, lambda a: a.reshape(-1), ["(6,)"]),
        (FIRST, lambda a: a * np.float32(np.nan), ["NaN"]),
        (FIRST, lambda a: a * np.float32(np.inf), ["infinity"]),
        (FIRST, lambda a: a.astype(np.int64), ["int64", "float32 or float64"]),
        (FIRST, lambda a: a.astype(np.float16), ["float16"]),
        (f"{SPARSE}/targets", lambda a: a + 100, ["targets outside 0 to 3"]),
        (f"{SPARSE}/targets", lambda a: a.astype(np.int32), ["int32", "uint16, uint32, int64"]),
        (f"{SPARSE}/pointers", lambda a: a.astype(np.int32), ["int32", "int64"]),
        (f"{SPARSE}/targets", lambda a: np.append(a, 0), ["targets"]),
        (f"{SPARSE}/pointers", lambda a: -a, ["pointers"]),
        (f"{SPARSE}/pointers", lambda a: a[:-1], ["pointers"]),
        (f"{SPARSE}/weights", lambda a: a * 0, ["exact zeros"]),
        ("populations/a/b/bias", lambda a: a[:2], ["bias", "2 values for 3"]),
        ("populations/a/b/bias", lambda a: a.astype(np.float32), ["bias", "float64"]),
        ("populations/in/threshold", lambda a: a - 1, ["threshold", "below 0"]),
        ("populations/in/threshold", lambda a: a + np.inf, ["threshold"]),
        ("data/extra", lambda a: a * np.nan, ["data/extra", "NaN"]),
    ],
)
def test_a_tampered_tensor_is_named(
    stored: Path, name: str, change: Callable[[Any], Any], words: list[str]
) -> None:
    header, tensors = take_apart(stored)
    tensors[name] = np.ascontiguousarray(change(tensors[name]))
    if tensors[name].shape == (1,):
        tensors[name] = tensors[name].reshape(())
    put_together(stored, header, tensors, announce=True)
    refuse(stored, name.rsplit("/", 1)[0] if "populations" not in name else "populations", *words)


def test_an_announced_shape_or_dtype_must_be_kept(stored: Path) -> None:
    header, tensors = take_apart(stored)
    put_together(stored, header, {**tensors, FIRST: tensors[FIRST].T.copy()})
    refuse(stored, FIRST, "(2, 3)", "[3, 2]")
    put_together(stored, header, {**tensors, FIRST: tensors[FIRST].astype(np.float64)})
    refuse(stored, FIRST, "float64", "float32")


def at(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        place: Any = header
        for key in path[:-1]:
            place = place[key]
        if value is DELETE:
            del place[path[-1]]
        else:
            place[path[-1]] = value

    return change


DELETE = object()


@pytest.mark.parametrize(
    "change, words",
    [
        (at("populations", value=DELETE), ["'populations'", "missing"]),
        (at("populations", value={}), ["'populations'", "list"]),
        (at("populations", 0, value=3), ["populations[0].name"]),
        (at("populations", 0, "size", value=3), ["populations[0]"]),
        (at("populations", 0, "size", value=2.0), ["populations[0].size", "int"]),
        (at("populations", 0, "size", value=True), ["populations[0].size", "int"]),
        (at("populations", 2, "shape", value=[4, 4]), ["populations[2]", "shape"]),
        (at("populations", 2, "shape", value=[-2, -2]), ["populations[2].shape"]),
        (at("populations", 2, "shape", value=["2"]), ["populations[2].shape"]),
        (at("populations", 1, "model", value="lif"), ["populations[1].model", "'lif'"]),
        (at("populations", 1, "model", value=None), ["populations[1].model"]),
        (at("populations", 1, "activation", value=DELETE), ["activation", "missing"]),
        (at("populations", 1, "activation", value="relu"), ["activation", "dict"]),
        (at("populations", 1, "activation", value={}), ["populations[1]", "activation"]),
        (at("populations", 1, "activation", value={"name": []}), ["populations[1]"]),
        (at("populations", 1, "activation", value={"name": "magic"}), ["populations[1]", "magic"]),
        (at("populations", 1, "activation", "alpha", value="x"), ["populations[1]"]),
        (at("populations", 1, "activation", "alpha", value=10**400), ["populations[1]"]),
        (at("populations", 1, "activation", "beta", value=1), ["populations[1]", "beta"]),
        (at("populations", 1, "name", value="in"), ["populations"]),
        (at("populations", 1, "name", value="new"), ["new"]),
        (at("projections", 0, "source", value="new"), ["projections[0].source", "new"]),
        (at("projections", 0, "target", value="out"), ["first", "(3, 2)"]),
        (at("projections", 0, "target", value="in"), ["first"]),
        (at("projections", 0, "delay", value=-1), ["first", "delay"]),
        (at("projections", 0, "delay", value=10**400), ["projections[0]"]),
        (at("projections", 0, "delay", value=1.5), ["projections[0].delay", "int"]),
        (at("projections", 2, "delay", value=0), ["cycle without delay"]),
        (at("projections", 0, "receptor", value="left"), ["first", "left"]),
        (at("projections", 0, "dense_macs", value=-3), ["dense_macs"]),
        (at("projections", 0, "connectivity", value="conv"), ["connectivity", "'conv'"]),
        (at("projections", 0, "name", value="second"), ["projections/second/weights", "missing"]),
        (at("projections", 1, value=DELETE), [SPARSE, "belongs to nothing"]),
        (at("outputs", value=["nowhere"]), ["outputs", "nowhere"]),
        (at("outputs", value=[3]), ["outputs"]),
        (at("outputs", value=[]), ["outputs"]),
        (at("name", value=None), ["'name'"]),
        (at("tensors", value=DELETE), ["'tensors'", "missing"]),
        (at("tensors", FIRST, value=3), [FIRST]),
    ],
)
def test_a_tampered_field_is_named(
    stored: Path, change: Callable[[dict[str, Any]], None], words: list[str]
) -> None:
    header, tensors = take_apart(stored)
    change(header)
    put_together(stored, header, tensors)
    refuse(stored, *words)


def test_a_file_that_may_not_be_read_is_named(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(safetensors, "safe_open", fail)
    refuse(stored, "permissions")


def test_loading_runs_without_scipy_or_models() -> None:
    code = (
        "import sys, eventsim.files; "
        "sys.exit(any(m in sys.modules for m in ('scipy', 'numba', 'eventsim.models')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
