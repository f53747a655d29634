"""Save and load: a network, and what belongs to it, in one safetensors file.

The arrays are tensors; everything else is one JSON string under the metadata key ``eventsim``,
with the schema ``eventsim-policy/1``:

    schema       "eventsim-policy/1"
    name         name of the network
    populations  [{name, size, shape, model, ...}]        scalars of the neuron model by field
    projections  [{name, source, target, delay, receptor, dense_macs, connectivity, ...}]
    outputs      [population names]
    tensors      {name: [dtype, shape]}                    every tensor in the file, no other
    ...          what the caller adds: encoder, decoder, metadata

Tensors are named ``populations/<name>/<field>``, ``projections/<name>/<field>`` and, for the
caller's, ``data/<name>``. A file is written to a temporary name and renamed; it is never a
pickle. Other neuron models and connectivities join by an entry in `NEURONS` or
`eventsim.codecs.CONNECTIVITIES`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eventsim.codecs import CONNECTIVITIES, Arrays, narrowed
from eventsim.errors import (
    EventsimError,
    FileFormatError,
    InputError,
    UnsupportedError,
)
from eventsim.network import Network, Population, Projection
from eventsim.neurons import Activation, Delta, Input, MaxPool, NeuronModel
from eventsim.output import write_atomically

Record: TypeAlias = dict[str, Any]

SCHEMA = "eventsim-policy/1"
STATE_SCHEMA = "eventsim-state/1"
KEY = "eventsim"
_OWN = ("schema", "name", "populations", "projections", "outputs", "tensors")
_DTYPES = ("float32", "float64", "int64", "int32", "int8", "uint8", "uint16", "uint32", "bool")


@dataclass(frozen=True, eq=False)
class Stored:
    """What a file holds.

    Parameters
    ----------
    network : Network
    extra : dict
        The JSON fields that the caller of `save` added.
    arrays : dict of str to array
        The arrays that the caller of `save` added.
    """

    network: Network
    extra: Record
    arrays: Arrays


def save(
    path: str | os.PathLike[str],
    network: Network,
    extra: Mapping[str, Any] | None = None,
    arrays: Mapping[str, NDArray[Any]] | None = None,
) -> None:
    """Write a network to one safetensors file, replacing what was there at once.

    Parameters
    ----------
    path : path
    network : Network
    extra : mapping, optional
        Further JSON fields; NumPy scalars and arrays in them become plain numbers and lists.
    arrays : mapping of str to array, optional
        Further tensors.

    Raises
    ------
    InputError
        If `extra` is not plain data, or takes a name of the schema.
    UnsupportedError
        If the network holds a neuron model or connectivity that has no stored form.
    OutputError
        If the file cannot be written.
    """
    _write(Path(path), _content(network, extra, arrays, narrow=True))


def fingerprint(
    network: Network,
    extra: Mapping[str, Any] | None = None,
    arrays: Mapping[str, NDArray[Any]] | None = None,
) -> str:
    """Return the SHA-256 of what `save` would write, whatever room its indices take there.

    Parameters and errors are those of `save`.
    """
    return hashlib.sha256(_content(network, extra, arrays, narrow=False)).hexdigest()


def _content(
    network: Network,
    extra: Mapping[str, Any] | None,
    arrays: Mapping[str, NDArray[Any]] | None,
    *,
    narrow: bool,
) -> bytes:
    """Return the bytes of a file."""
    header, tensors = _pack(network)
    clash = sorted(set(extra or {}) & set(_OWN))
    if clash:
        raise InputError(f"'{clash[0]}' is a field of the schema; name it otherwise")
    for name in tensors if narrow else ():
        if name.startswith("projections/") and name.endswith("/targets"):
            tensors[name] = narrowed(tensors[name])
    for name, array in (arrays or {}).items():
        tensors[f"data/{name}"] = array
    # np.require keeps the shape () that np.ascontiguousarray would turn into (1,).
    tensors = {name: np.require(array, requirements="C") for name, array in tensors.items()}
    for name, array in tensors.items():
        if array.dtype.name not in _DTYPES:
            raise InputError(f"dtype {array.dtype} has no stored form", where=f"array '{name}'")
    header["tensors"] = {n: [a.dtype.name, list(a.shape)] for n, a in tensors.items()}
    return _to_bytes(tensors, _to_json({**header, **(extra or {})}))


def load(path: str | os.PathLike[str]) -> Stored:
    """Read a file that `save` wrote.

    Nothing in the file is executed. All of it is checked before any of it is used.

    Raises
    ------
    FileFormatError
        If there is no such file, or it is damaged, foreign, of another schema, or contradicts
        itself; the message names the file and the field.
    """
    where = f"'{os.fspath(path)}'"
    text, tensors = _read(Path(path), where)
    header = _from_json(text, where)
    if header.get("schema") != SCHEMA:
        raise FileFormatError(
            f"is {header.get('schema')!r}, but this version reads {SCHEMA!r}; upgrade eventsim or "
            "save the policy again",
            where=where,
            field="schema",
        )
    _check_tensors(header, tensors, where)
    try:
        network = _unpack(header, tensors, where)
    except FileFormatError:
        raise
    except EventsimError as error:
        raise FileFormatError(f"does not describe a network: {error}", where=where) from error
    extra = {key: value for key, value in header.items() if key not in _OWN}
    prefix = "data/"
    data = {n.removeprefix(prefix): a for n, a in tensors.items() if n.startswith(prefix)}
    return Stored(network, extra, data)


def save_state(path: str | os.PathLike[str], arrays: tuple[NDArray[Any], ...]) -> None:
    """Write the arrays of a simulator's state, in order, to a safetensors file.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    tensors = {f"{k:03d}": np.require(a, requirements="C") for k, a in enumerate(arrays)}
    listed = {name: [a.dtype.name, list(a.shape)] for name, a in tensors.items()}
    text = _to_json({"schema": STATE_SCHEMA, "tensors": listed})
    _write(Path(path), _to_bytes(tensors, text))


def load_state(path: str | os.PathLike[str]) -> tuple[NDArray[Any], ...]:
    """Read the arrays that `save_state` wrote.

    Raises
    ------
    FileFormatError
        If there is no such file, or it is damaged or foreign.
    """
    where = f"'{os.fspath(path)}'"
    text, tensors = _read(Path(path), where)
    header = _from_json(text, where)
    if header.get("schema") != STATE_SCHEMA:
        raise FileFormatError(
            f"is {header.get('schema')!r}, but a state is {STATE_SCHEMA!r}; give a file that "
            "SimulatorState.save wrote",
            where=where,
            field="schema",
        )
    _check_tensors(header, tensors, where)
    return tuple(tensors[name] for name in sorted(tensors))


#: Neuron models that a file can hold: their dataclass fields are scalars, arrays or activations.
NEURONS: dict[str, type[NeuronModel]] = {cls.kind: cls for cls in (Input, Delta, MaxPool)}


def _pack(network: Network) -> tuple[Record, Arrays]:
    tensors: Arrays = {}
    populations = []
    for p in network.populations:
        where = f"population '{p.name}'"
        if NEURONS.get(p.neuron.kind) is not type(p.neuron):
            raise UnsupportedError(f"neurons '{p.neuron.kind}' have no stored form", where=where)
        record: Record = {"name": p.name, "size": p.size, "shape": p.shape, "model": p.neuron.kind}
        for field in dataclasses.fields(p.neuron):
            value = getattr(p.neuron, field.name)
            if isinstance(value, Activation):
                record[field.name] = value.to_dict()
            else:  # also one number for all neurons: as a tensor it keeps every bit
                tensors[f"populations/{p.name}/{field.name}"] = np.asarray(value, np.float64)
        populations.append(record)
    projections = []
    for q in network.projections:
        where = f"projection '{q.name}'"
        codec = CONNECTIVITIES.get(q.weights.kind)
        if codec is None or codec.cls is not type(q.weights):
            raise UnsupportedError(f"'{q.weights.kind}' weights have no stored form", where=where)
        arrays = codec.pack(q.weights)
        try:  # nothing is written that could not be read back
            codec.unpack(arrays, q.weights.shape)
        except ValueError as error:
            raise InputError(str(error), where=where, field="weights") from error
        for name, array in arrays.items():
            tensors[f"projections/{q.name}/{name}"] = array
        projections.append(
            {
                "name": q.name,
                "source": q.source,
                "target": q.target,
                "delay": q.delay,
                "receptor": q.receptor,
                "dense_macs": q.dense_macs,
                "connectivity": q.weights.kind,
            }
        )
    header: Record = {
        "schema": SCHEMA,
        "name": network.name,
        "populations": populations,
        "projections": projections,
        "outputs": network.outputs,
    }
    return header, tensors


def _unpack(header: Record, tensors: Arrays, where: str) -> Network:
    used = {name for name in tensors if name.startswith("data/")}
    populations: list[Population] = []
    for k, record in enumerate(_get(header, "populations", list, where)):
        populations.append(_population(record, f"populations[{k}]", tensors, used, where))
    sizes = {p.name: p.size for p in populations}
    projections: list[Projection] = []
    for k, record in enumerate(_get(header, "projections", list, where)):
        projections.append(_projection(record, f"projections[{k}]", tensors, sizes, used, where))
    unused = sorted(set(tensors) - used)
    if unused:
        raise FileFormatError("belongs to nothing in the file", where=where, field=unused[0])
    outputs = _get(header, "outputs", list, where)
    if not outputs or not all(isinstance(name, str) for name in outputs):
        raise FileFormatError("is not a list of names", where=where, field="outputs")
    name = _get(header, "name", str, where)
    return Network(tuple(populations), tuple(projections), tuple(outputs), name)


def _population(record: Any, field: str, tensors: Arrays, used: set[str], where: str) -> Population:
    name = _get(record, "name", str, where, field)
    shape = _get(record, "shape", list, where, field)
    if not all(type(n) is int and n > 0 for n in shape):
        raise FileFormatError("is not a list of sizes", where=where, field=f"{field}.shape")
    model = _get(record, "model", str, where, field)
    if model not in NEURONS:
        raise FileFormatError(
            f"is {model!r}; this version knows {', '.join(NEURONS)}",
            where=where,
            field=f"{field}.model",
        )
    values: dict[str, Any] = {}
    names = [f.name for f in dataclasses.fields(NEURONS[model])]
    for parameter in names:
        tensor = f"populations/{name}/{parameter}"
        if tensor in tensors:
            array = _finite(tensors[tensor], tensor, where)
            values[parameter] = float(array) if array.ndim == 0 else array
            used.add(tensor)
        elif parameter in record:
            values[parameter] = _get(record, parameter, dict, where, field)
        else:
            raise FileFormatError("is missing", where=where, field=tensor)
    try:
        neuron = NEURONS[model](**values)
        return Population(name, _get(record, "size", int, where, field), neuron, tuple(shape))
    except FileFormatError:
        raise
    except (EventsimError, TypeError, ValueError, ArithmeticError) as error:
        raise FileFormatError(str(error), where=where, field=field) from error


def _projection(
    record: Any,
    field: str,
    tensors: Arrays,
    sizes: Mapping[str, int],
    used: set[str],
    where: str,
) -> Projection:
    name = _get(record, "name", str, where, field)
    ends = {key: _get(record, key, str, where, field) for key in ("source", "target")}
    for key, population in ends.items():
        if population not in sizes:
            raise FileFormatError(
                f"names the population {population!r}, which the file does not hold",
                where=where,
                field=f"{field}.{key}",
            )
    kind = _get(record, "connectivity", str, where, field)
    if kind not in CONNECTIVITIES:
        raise FileFormatError(
            f"is {kind!r}; this version knows {', '.join(CONNECTIVITIES)}",
            where=where,
            field=f"{field}.connectivity",
        )
    codec = CONNECTIVITIES[kind]
    arrays: Arrays = {}
    for part in codec.fields:
        tensor = f"projections/{name}/{part}"
        if tensor not in tensors:
            raise FileFormatError("is missing", where=where, field=tensor)
        arrays[part] = tensors[tensor]
        used.add(tensor)
    try:
        weights = codec.unpack(arrays, (sizes[ends["target"]], sizes[ends["source"]]))
    except ValueError as error:
        raise FileFormatError(
            f"the weights {error}", where=where, field=f"projections/{name}"
        ) from error
    delay = _get(record, "delay", int, where, field)
    receptor = _get(record, "receptor", str, where, field)
    dense_macs = _get(record, "dense_macs", int, where, field)
    try:
        return Projection(
            ends["source"], ends["target"], weights, delay, receptor, name, dense_macs
        )
    except (EventsimError, OverflowError) as error:
        raise FileFormatError(str(error), where=where, field=field) from error


def _get(record: Any, key: str, kind: type[Any], where: str, prefix: str = "") -> Any:
    """Return ``record[key]``, which must be of the type `kind`."""
    field = f"{prefix}.{key}" if prefix else key
    if not isinstance(record, dict) or key not in record:
        raise FileFormatError("is missing", where=where, field=field)
    value = record[key]
    if type(value) is not kind:
        raise FileFormatError(
            f"is of the type {type(value).__name__}, expected {kind.__name__}",
            where=where,
            field=field,
        )
    return value


def _finite(array: NDArray[Any], name: str, where: str) -> NDArray[Any]:
    if array.dtype != np.float64 or not np.isfinite(array).all():
        raise FileFormatError("does not hold finite float64 numbers", where=where, field=name)
    return array


def _check_tensors(header: Record, tensors: Arrays, where: str) -> None:
    """Compare the tensors with the list that the header carries."""
    listed = _get(header, "tensors", dict, where)
    for name, entry in listed.items():
        if name not in tensors:
            raise FileFormatError("is missing", where=where, field=name)
        array = tensors[name]
        if entry != [array.dtype.name, list(array.shape)]:
            raise FileFormatError(
                f"is {array.dtype.name} of shape {array.shape}, but the file announces {entry}",
                where=where,
                field=name,
            )
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise FileFormatError("holds NaN", where=where, field=name)
        array.flags.writeable = False
    unknown = sorted(set(tensors) - set(listed))
    if unknown:
        raise FileFormatError("is not announced by the file", where=where, field=unknown[0])


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} has no JSON form")


def _to_json(header: Record) -> str:
    try:
        return json.dumps(header, default=_plain, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"cannot be stored ({error}); give plain numbers, strings, lists and dicts",
            where="metadata",
        ) from error


def _from_json(text: str, where: str) -> Record:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    try:
        header = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise FileFormatError("is not valid JSON", where=where, field=KEY) from error
    if not isinstance(header, dict):
        raise FileFormatError("is not a JSON object", where=where, field=KEY)
    return header


def _read(path: Path, where: str) -> tuple[str, Arrays]:
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise FileFormatError("does not exist; check the path", where=where)
    if not path.is_file():
        raise FileFormatError("is not a file; give a file that eventsim saved", where=where)
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if KEY not in metadata:
                raise FileFormatError(
                    "is a safetensors file, but not one that eventsim saved: it has no metadata "
                    f"entry {KEY!r}",
                    where=where,
                    field=KEY,
                )
            return metadata[KEY], {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except PermissionError as error:
        raise FileFormatError("cannot be read; check its permissions", where=where) from error
    except (SafetensorError, OSError, TypeError, AttributeError, KeyError) as error:
        raise FileFormatError(
            "is not a complete safetensors file that NumPy can read; save or download it again",
            where=where,
        ) from error


def _to_bytes(tensors: Arrays, text: str) -> bytes:
    from safetensors import SafetensorError
    from safetensors.numpy import save as to_bytes

    try:
        return bytes(to_bytes(tensors, metadata={KEY: text}))
    except (SafetensorError, UnicodeError) as error:
        raise InputError(f"cannot be stored: {error}", where="names of the network") from error


def _write(path: Path, content: bytes) -> None:
    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomically(path, write)
