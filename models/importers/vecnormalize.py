"""Read the observation statistics of a Stable-Baselines3 ``VecNormalize`` file, inertly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eventsim.errors import EventsimError, FileFormatError
from eventsim.models.encoders import Normalization
from eventsim.models.importers.inert_numpy import NUMPY
from eventsim.models.importers.inert_pickle import read
from eventsim.models.importers.inert_values import Inert

MAX_BYTES = 2**28


def read_normalization(path: Path) -> Normalization | Mapping[str, Normalization] | None:
    """Return how ``vecnormalize.pkl`` normalises observations.

    Parameters
    ----------
    path : path
        What ``VecNormalize.save`` wrote.

    Returns
    -------
    Normalization, mapping of str to Normalization, or None
        A mapping for a dict observation; None if observations were not normalised.

    Raises
    ------
    FileFormatError
        If the file cannot be read, is not a VecNormalize object, or is damaged.
    """
    where = path.name
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileFormatError(f"has more than {MAX_BYTES} bytes; it is refused", where=where)
        data = path.read_bytes()
    except OSError as error:
        raise FileFormatError(
            f"cannot be read ({error.strerror}); give another file by --normalization",
            where=where,
        ) from error
    return parse_normalization(data, where)


def parse_normalization(
    data: bytes, where: str
) -> Normalization | Mapping[str, Normalization] | None:
    """Like `read_normalization`, from the file's content."""
    value = read(data, where, NUMPY)
    if not (isinstance(value, Inert) and value.kind and value.kind.attribute == "VecNormalize"):
        raise FileFormatError(
            "does not hold a VecNormalize object; give the file that VecNormalize.save() wrote",
            where=where,
        )
    fields = value.fields
    if not fields.get("norm_obs", True):
        return None
    statistics = fields.get("obs_rms")
    if not isinstance(statistics, dict):
        return _normalization(statistics, fields, where)
    keys = fields.get("norm_obs_keys")
    chosen = keys if isinstance(keys, list | tuple) else list(statistics)
    for key in chosen:
        if not isinstance(key, str) or key not in statistics:
            raise FileFormatError(
                "lacks the statistics of a key that it normalises", where=where, field="obs_rms"
            )
    return {key: _normalization(statistics[key], fields, where) for key in chosen}


def _normalization(statistics: Any, fields: Mapping[str, Any], where: str) -> Normalization:
    moments = statistics.fields if isinstance(statistics, Inert) else {}
    for name in ("mean", "var"):
        # A scalar space's mean is a NumPy scalar.
        if not isinstance(moments.get(name), np.ndarray | np.floating):
            raise FileFormatError("holds no array of numbers", where=where, field=f"obs_rms.{name}")
    for name in ("clip_obs", "epsilon"):
        if not isinstance(fields.get(name), int | float | np.number):
            raise FileFormatError("is not a number", where=where, field=name)
    try:
        return Normalization(
            moments["mean"], moments["var"], float(fields["clip_obs"]), float(fields["epsilon"])
        )
    except EventsimError as error:
        raise FileFormatError(str(error), where=where) from error
