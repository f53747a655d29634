"""Writing the files of a run: every one under a temporary name first, then renamed."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import OutputError


def prepare_folder(folder: str | os.PathLike[str]) -> Path:
    """Create a folder if need be, and see that files can be written there.

    Raises
    ------
    OutputError
        If not; best asked before the work whose results go there.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise _cannot_write(path, error) from error
    return path


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it to `path`.

    Whatever stood there stays as it was until the new file is complete.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    try:
        try:
            write(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error


@dataclass(frozen=True, eq=False)
class Coded:
    """A text column in which row k says ``names[codes[k]]``."""

    codes: NDArray[np.int64]
    names: tuple[str, ...]


def write_parquet(path: Path, columns: Mapping[str, NDArray[Any] | Coded]) -> None:
    """Write int64 and float64 columns and text to a parquet file; NaN becomes null."""
    import pyarrow.parquet as pq

    pq.write_table(parquet_table(columns), path, compression="zstd")


def parquet_table(columns: Mapping[str, NDArray[Any] | Coded]) -> Any:
    """Return int64 and float64 columns and text as an Arrow table; NaN becomes null."""
    import pyarrow as pa

    arrays = [_arrow(column) for column in columns.values()]
    return pa.Table.from_arrays(arrays, names=list(columns))


def _arrow(column: NDArray[Any] | Coded) -> Any:
    """Return a column as an Arrow array.

    Made from its buffers: ``pyarrow.array`` would import pandas, a third of a second.
    """
    import pyarrow as pa

    if isinstance(column, Coded):
        encoded = [name.encode() for name in column.names]
        ends = np.cumsum([0, *map(len, encoded)]).astype(np.int32)
        buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
        names = pa.Array.from_buffers(pa.string(), len(encoded), buffers)
        return pa.DictionaryArray.from_arrays(_arrow(column.codes), names)
    values = np.ascontiguousarray(column)
    valid = None
    if values.dtype == np.float64 and np.isnan(values).any():
        valid = pa.py_buffer(np.packbits(~np.isnan(values), bitorder="little"))
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, values.size, [valid, pa.py_buffer(values)])


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8 with plain line ends."""
    path.write_text(text, encoding="utf-8", newline="\n")


def _cannot_write(path: Path, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(
        f"cannot be written ({reason}); choose another place or change its permissions",
        where=str(path),
    )
