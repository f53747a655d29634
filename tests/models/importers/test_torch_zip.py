"""The tensors of torch files, and what is refused."""

from __future__ import annotations

import contextlib
import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventsim.errors import EventsimError, FileFormatError
from eventsim.models.importers.archive import Archive
from eventsim.models.importers.torch_zip import read_tensors
from tests.sb3_files import Hostile, state_dict_pickle, tensor_code, torch_file, torch_zip

TENSORS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(4, dtype=np.float64),
    "c": np.arange(3, dtype=np.float16),
    "d": np.array(7, dtype=np.int64),
    "e": np.zeros((0, 3), np.float32),
    "f": np.array([True, False]),
}


def one(code: bytes, content: bytes = bytes(24), **members: bytes) -> Any:
    """Read a file of one tensor "w" whose storage "0" has the given content."""
    data = torch_zip({"data.pkl": state_dict_pickle({"w": code}), "data/0": content, **members})
    return read_tensors(data, "x.pth")["w"]


@pytest.mark.parametrize("order", ["<", ">"])
def test_tensors(order: str) -> None:
    got = read_tensors(torch_file(TENSORS, order), "x.pth")
    assert list(got) == list(TENSORS)
    for name, expected in TENSORS.items():
        assert got[name].dtype == expected.dtype
        assert got[name].shape == expected.shape
        assert np.array_equal(got[name], expected)
        assert not got[name].flags.writeable or got[name].size == 0


def test_strides_and_offset() -> None:
    content = np.arange(6, dtype="<f4").tobytes()
    transposed = one(tensor_code("0", "FloatStorage", 6, (3, 2), (1, 3)), content)
    assert np.array_equal(transposed, np.arange(6).reshape(2, 3).T)
    part = one(tensor_code("0", "FloatStorage", 6, (2,), (2,), offset=1), content)
    assert np.array_equal(part, [1.0, 3.0])


def test_bfloat16() -> None:
    content = np.array([1.5, -3.0], "<f4").view("<u2")[1::2].tobytes()
    assert np.array_equal(one(tensor_code("0", "BFloat16Storage", 2, (2,)), content), [1.5, -3.0])


BAD = {
    "storage smaller than its tensor": tensor_code("0", "FloatStorage", 6, (7,)),
    "offset beyond": tensor_code("0", "FloatStorage", 6, (6,), (1,), offset=1),
    "stride beyond": tensor_code("0", "FloatStorage", 6, (2, 3), (4, 1)),
    "expanded": tensor_code("0", "FloatStorage", 6, (2**20, 2**20), (0, 0)),
    "huge": tensor_code("0", "FloatStorage", 2**39, (2**39,)),
    "negative size": tensor_code("0", "FloatStorage", 6, (-1,), (1,)),
    "negative offset": tensor_code("0", "FloatStorage", 6, (1,), (1,), offset=-1),
    "negative stride": tensor_code("0", "FloatStorage", 6, (2,), (-1,)),
    "wrong count": tensor_code("0", "FloatStorage", 5, (5,)),
    "wrong type": tensor_code("0", "DoubleStorage", 6, (6,)),
    "ranks differ": tensor_code("0", "FloatStorage", 6, (6,), (1, 1)),
    "too many axes": tensor_code("0", "FloatStorage", 6, (1,) * 9),
    "no such storage": tensor_code("1", "FloatStorage", 6, (6,)),
    "path in the key": tensor_code("../0", "FloatStorage", 6, (6,)),
    "unknown type": tensor_code("0", "ComplexFloatStorage", 3, (3,)),
    "not a storage": b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00))\x89NtR",
    "called without arguments": b"ctorch._utils\n_rebuild_tensor_v2\n)R",
    "parameter of nothing": b"ctorch._utils\n_rebuild_parameter\n(N\x89NtR",
    "another persistent id": b"U\x03abcQ",
    "another function": b"ctorch._utils\n_rebuild_sparse_tensor\n)R",
    "a command": b"cposix\nsystem\n(U\x04truetR",
    "numpy": b"cnumpy\nzeros\n(J\xff\xff\xff\x7ftR",
    "getattr": b"c__builtin__\ngetattr\n)R",
    "new object": b"ctorch\nFloatStorage\n)\x81",
}


@pytest.mark.parametrize("code", BAD.values(), ids=BAD.keys())
def test_bad_tensors(code: bytes) -> None:
    if code == BAD["new object"]:
        with pytest.raises(KeyError):  # an inert record is no tensor and is left out
            one(code)
        return
    with pytest.raises(FileFormatError, match=r"^x\.pth"):
        one(code)


def test_unknown_byte_order() -> None:
    with pytest.raises(FileFormatError, match="byte order"):
        one(tensor_code("0", "FloatStorage", 6, (6,)), byteorder=b"middle")


def test_a_file_without_tensors() -> None:
    for data in (torch_zip({"other": b""}), torch_zip({"a/data.pkl": b"N.", "b/data.pkl": b"N."})):
        with pytest.raises(FileFormatError, match="no torch data"):
            read_tensors(data, "x.pth")
    with pytest.raises(FileFormatError, match="dict of tensors"):
        read_tensors(torch_zip({"data.pkl": b"K\x01."}), "x.pth")
    with pytest.raises(FileFormatError):
        read_tensors(b"", "x.pth")
    with pytest.raises(FileFormatError, match=r"torch\.save"):
        read_tensors(pickle.dumps({}), "x.pth")


def test_a_hostile_pickle_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "made"
    for data in (
        torch_zip({"data.pkl": pickle.dumps(OrderedDict(w=Hostile(marker)), 2)}),
        pickle.dumps(Hostile(marker), 2),
    ):
        with pytest.raises(FileFormatError, match=r"system'.*nothing was run"):
            read_tensors(data, "x.pth")
    assert not marker.exists()


def test_zip_bombs() -> None:
    code = {"data.pkl": state_dict_pickle({"w": tensor_code("0", "ByteStorage", 2**23, (2**23,))})}
    data = torch_zip({**code, "data/0": bytes(2**23)}, compression=zipfile.ZIP_DEFLATED)
    assert len(data) < 2**16
    with pytest.raises(FileFormatError, match="8388608 bytes, which no saved agent needs"):
        read_tensors(data, "x.pth")


def test_archive_limits() -> None:
    data = torch_zip({"a": bytes(100)})
    with Archive(data, "x.zip") as archive:
        assert archive.read("archive/a", 100) == bytes(100)
        with pytest.raises(FileFormatError, match="100 bytes"):
            archive.read("archive/a", 99)
        with pytest.raises(FileFormatError, match="holds no 'b'"):
            archive.read("b", 9)
    with pytest.raises(FileFormatError, match=r"^x\.zip: is not a complete zip file"):
        Archive(data[:-10], "x.zip")


@given(st.data())
def test_damaged_files(data: st.DataObject) -> None:
    valid = torch_file(TENSORS)
    damaged = bytearray(valid[: data.draw(st.integers(0, len(valid)) | st.just(len(valid)))])
    for _ in range(data.draw(st.integers(0, 5)) if damaged else 0):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(EventsimError):
        read_tensors(bytes(damaged), "x.pth")


@given(st.data())
def test_damaged_pickles_in_sound_zips(data: st.DataObject) -> None:
    with zipfile.ZipFile(io.BytesIO(torch_file(TENSORS))) as file:
        members = {n.removeprefix("archive/"): file.read(n) for n in file.namelist()}
    pickled = bytearray(members["data.pkl"])
    for _ in range(data.draw(st.integers(1, 5))):
        pickled[data.draw(st.integers(0, len(pickled) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(EventsimError):
        read_tensors(torch_zip({**members, "data.pkl": bytes(pickled)}), "x.pth")


@pytest.mark.parametrize("new_format", [True, False])
def test_files_that_torch_wrote(new_format: bool, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra 'train'")
    values = rng.normal(size=(4, 5))
    tensors = OrderedDict(
        parameter=torch.nn.Parameter(torch.tensor(values, dtype=torch.float32)),
        transposed=torch.tensor(values).t(),
        part=torch.arange(10.0)[3:9:2],
        half=torch.tensor(values[0]).half(),
        brain=torch.tensor([1.5, 2.0], dtype=torch.bfloat16),
        whole=torch.arange(4),
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
    )
    buffer = io.BytesIO()
    torch.save(tensors, buffer, _use_new_zipfile_serialization=new_format)
    got = read_tensors(buffer.getvalue(), "x.pth")
    assert list(got) == list(tensors)
    for name, tensor in tensors.items():
        exact = tensor.detach().float() if name == "brain" else tensor.detach()
        assert np.array_equal(got[name], exact.numpy())
        assert got[name].dtype == exact.numpy().dtype
    if not new_format:
        with pytest.raises(FileFormatError, match="cut off"):
            read_tensors(buffer.getvalue()[:-1], "x.pth")


@given(st.data())
def test_damaged_files_of_the_old_format(data: st.DataObject) -> None:
    def written(*values: Any) -> bytes:
        return b"".join(pickle.dumps(value, 2) for value in values)

    state = state_dict_pickle({"w": tensor_code("7", "FloatStorage", 3, (3,))})
    valid = (
        written(0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
        + state
        + written(["7"])
        + (3).to_bytes(8, "little")
        + np.arange(3, dtype="<f4").tobytes()
    )
    assert np.array_equal(read_tensors(valid, "x.pth")["w"], [0.0, 1.0, 2.0])
    damaged = bytearray(valid[: data.draw(st.integers(0, len(valid)) | st.just(len(valid)))])
    for _ in range(data.draw(st.integers(0, 5)) if damaged else 0):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(EventsimError):
        read_tensors(bytes(damaged), "x.pth")
