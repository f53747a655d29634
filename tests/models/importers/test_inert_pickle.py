"""The inert reader: equal to pickle on plain data and arrays, and harmless on anything."""

from __future__ import annotations

import contextlib
import datetime
import pickle
import pickletools
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventsim.errors import EventsimError, FileFormatError
from eventsim.models.importers.inert_numpy import NUMPY, dtype_name
from eventsim.models.importers.inert_pickle import names, read
from eventsim.models.importers.inert_values import Inert, Name, Rules
from tests.sb3_files import Hostile, class_pickle, vecnormalize_pickle

PROTOCOLS = range(6)
ATOMS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20)
)
VALUES = st.recursive(
    ATOMS,
    lambda children: (
        st.lists(children, max_size=4)
        | st.lists(children, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(), children, max_size=4)
        | st.sets(st.integers() | st.text(max_size=3), max_size=4)
        | st.frozensets(st.integers(), max_size=4)
        | st.dictionaries(st.text(max_size=3), children, max_size=3).map(OrderedDict)
    ),
    max_leaves=20,
)
DTYPES = ["<f4", ">f4", "<f8", ">f8", "<f2", "i1", "<i2", "<i4", "<i8", ">i8", "u1", "<u4", "?"]


def inert(data: bytes) -> Any:
    return read(data, "x.pkl", NUMPY)


@given(VALUES, st.sampled_from(PROTOCOLS))
def test_plain_data_as_pickle_reads_it(value: Any, protocol: int) -> None:
    assert inert(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_and_scalars(dtype: str, protocol: int, rng: np.random.Generator) -> None:
    array = (rng.normal(size=(3, 4)) * 9).astype(dtype)
    shared = [array, array.T, array[0], np.zeros((0, 2), dtype), array[1, 2], array]
    got = inert(pickle.dumps(shared, protocol))
    for expected, value in zip(shared, got, strict=True):
        assert np.array_equal(value, expected)
        assert value.shape == expected.shape
        assert value.dtype.name == expected.dtype.name
    assert got[0] is got[5]


def test_array_of_old_numpy_module() -> None:
    data = pickle.dumps(np.arange(3.0), 2).replace(b"numpy._core.", b"numpy.core.")
    assert np.array_equal(inert(data), np.arange(3.0))


def test_protocol_5_buffers_in_band() -> None:
    data = pickle.dumps(np.asfortranarray(np.arange(6.0).reshape(2, 3)), 5)
    assert b"_frombuffer" in data
    assert np.array_equal(inert(data), np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_objects_stay_inert(protocol: int) -> None:
    value = inert(pickle.dumps({"when": datetime.date(2020, 1, 2)}, protocol))["when"]
    assert isinstance(value, Inert)
    assert value.kind == Name("datetime", "date")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_fields_of_an_object(protocol: int) -> None:
    value = inert(vecnormalize_pickle(np.arange(2.0), np.ones(2), protocol=protocol))
    assert str(value.kind) == "stable_baselines3.common.vec_env.vec_normalize.VecNormalize"
    assert np.array_equal(value.fields["obs_rms"].fields["mean"], [0.0, 1.0])
    assert value.fields["observation_space"].kind.attribute == "Box"
    assert dtype_name(value.fields["observation_space"].fields["dtype"]) == "float32"


def test_cycles() -> None:
    value: list[Any] = []
    value.append(value)
    got = inert(pickle.dumps(value))
    assert got[0] is got


def test_names() -> None:
    assert names(class_pickle("a.b.C"), "x") == [Name("a.b", "C")]
    assert [str(n) for n in names(pickle.dumps(np.float32, 4), "x")] == ["numpy.float32"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_commands_are_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "made"
    data = pickle.dumps({"a": [Hostile(marker)]}, protocol)
    for rules in (NUMPY, Rules({})):
        with pytest.raises(FileFormatError, match=r"^x\.pkl: .*'(posix|nt)\.system'.*nothing was"):
            read(data, "x.pkl", rules)
    with pytest.raises(FileFormatError, match="nothing was run"):
        names(data, "x.pkl")
    assert not marker.exists()
    pickle.loads(data)
    assert marker.exists(), "the file was not hostile, so the test shows nothing"


@pytest.mark.parametrize(
    "code", [b"c__builtin__\neval\n", b"cbuiltins\nexec\n", b"csubprocess\nPopen\n", b"cio\nopen\n"]
)
def test_other_commands(code: bytes) -> None:
    with pytest.raises(FileFormatError, match="nothing was run"):
        inert(code + b"(S'1'\ntR.")


def test_names_that_the_rules_do_not_admit() -> None:
    with pytest.raises(FileFormatError, match=r"'a\.b\.C', which such a file never needs"):
        read(class_pickle("a.b.C"), "x", Rules({}, admit=lambda name: False))


STACK = (b"\x85", b"\x86", b"\x87", b"a", b"s", b"R", b"b", b"\x94", b"2", b"0", b"e", b"u", b"t")
MALFORMED = {
    "empty": b"",
    "no end": b"K\x01",
    "two values": b"K\x01K\x02.",
    "open mark": b"K\x01(.",
    "text": b"hello",
    "newer protocol": b"\x80\x06N.",
    "extension": b"\x82\x01.",
    "out-of-band buffer": b"\x80\x05\x97.",
    "persistent id": b"Pkey\n.",
    "unknown memo": b"h\x05.",
    "key without value": b"}(K\x01u.",
    "container as key": b"}(]K\x01u.",
    "nested tuple as key": b"})\x85\x85K\x01s.",
    "append to a dict": b"}K\x01a.",
    "items of a list": b"](K\x01K\x02u.",
    "add to a list": b"](K\x01\x90.",
    "state of a number": b"K\x01}b.",
    "name that is not text": b"K\x01K\x02\x93.",
    "array without type": b"cnumpy.core.numeric\n_frombuffer\n(C\x01aNK\x01U\x01CtR.",
    "no escape": rb"S'a\|b'" + b"\n.",
    "octal escape above a byte": rb"S'\777'" + b"\n.",
    "long decimal": b"I" + b"1" * 100_000 + b"\n.",
    **{f"{op!r} on an empty stack": op + b"." for op in STACK},
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed(data: bytes) -> None:
    with pytest.raises(FileFormatError, match=r"^x\.pkl: holds a pickle that"):
        inert(data)


def array_code(shape: bytes, raw: bytes, dtype: bytes = b"f8", rest: bytes = b"NNN") -> bytes:
    """An array of given parts, as protocol 2 would build it."""
    kind = b"cnumpy\ndtype\n(U" + bytes([len(dtype)]) + dtype + b"I00\nI01\ntR"
    kind += b"(K\x03U\x01<" + rest + b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"
    return empty + b"(K\x01" + shape + kind + b"I00\n" + raw + b"tb."


def test_array_code_itself() -> None:
    assert inert(array_code(b"(K\x01t", b"C\x08" + bytes(8))) == [0.0]


@pytest.mark.parametrize(
    "data",
    [
        array_code(b"(K\x02t", b"C\x08" + bytes(8)),
        array_code(b"(K\x01t", b"C\x09" + bytes(9)),
        array_code(b"(J\xff\xff\xff\xfft", b"C\x08" + bytes(8)),
        array_code(b"(I" + b"9" * 30 + b"\nt", b"C\x08" + bytes(8)),
        array_code(b"(K\x01t", b"C\x08" + bytes(8), dtype=b"O8"),
        array_code(b"(K\x01t", b"C\x08" + bytes(8), dtype=b"V8"),
        array_code(b"(K\x01t", b"C\x08" + bytes(8), rest=b"N)N"),
        array_code(b"(K\x01t", b"]"),
        array_code(b"(" + b"K\x01" * 33 + b"t", b"C\x08" + bytes(8)),
    ],
)
def test_malformed_arrays(data: bytes) -> None:
    with pytest.raises(FileFormatError, match="holds a pickle that"):
        inert(data)


def test_arrays_of_objects_are_refused() -> None:
    with pytest.raises(FileFormatError, match="other than plain numbers"):
        inert(pickle.dumps(np.array([None, {}], dtype=object)))


def test_one_long_text_does_not_become_many() -> None:
    text = b"X\x00\x00\x10\x00" + b"a" * 2**20 + b"q\x00"
    encode = b"c_codecs\nencode\nq\x010"
    call = b"h\x01h\x00U\x06latin1\x86R"
    with pytest.raises(FileFormatError, match="many times its size"):
        inert(b"(" + text + b"0" + encode + call * 1000 + b"l.")


def test_endless_instructions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventsim.models.importers.inert_pickle.MAX_OPCODES", 1000)
    with pytest.raises(FileFormatError, match="more than 1000 instructions"):
        inert(b"N0" * 1000 + b"N.")


@pytest.mark.parametrize("wrap", [b"\x85", b"l", b"R"])
def test_deep_nesting_is_harmless(wrap: bytes) -> None:
    depth = 200_000
    if wrap == b"l":
        data = b"(" * depth + b"l" * depth
    elif wrap == b"\x85":
        data = b")" + wrap * depth
    else:
        data = b"cdatetime\ndate\n" + b")R" * depth
    value = inert(data + b".")
    assert value is not None
    del value


@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    with contextlib.suppress(FileFormatError):
        inert(data)


@given(st.lists(st.sampled_from([op.code.encode("latin-1") for op in pickletools.opcodes])))
def test_random_instructions(codes: list[bytes]) -> None:
    with contextlib.suppress(FileFormatError):
        inert(b"".join(codes) + b".")


@given(st.data())
def test_flipped_bytes(data: st.DataObject) -> None:
    pickled = bytearray(vecnormalize_pickle(np.arange(2.0), np.ones(2)))
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, len(pickled) - 1))
        pickled[position] = data.draw(st.integers(0, 255))
    with contextlib.suppress(EventsimError):
        inert(bytes(pickled))
