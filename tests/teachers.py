"""Keep trained teachers small enough for the repository, to repeat what became of them.

    python -m tests.teachers pack runs/atari/pong
    python -m tests.teachers unpack pong --out runs/atari/pong

Training one takes long. Packed, large matrices have 8 bits a weight and a scale a row, and other
weights 16; what is packed plays 30 episodes, whose returns are kept beside it. Unpacked, a folder
holds `training.json`, `evaluation.json` and `policy.safetensors`, as it is taken by
`python -m tests.pictures_table` and `python -m tests.bench_conv`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

import eventsim
from eventsim.models.policy import Policy
from eventsim.output import write_atomically, write_text
from tests.optimize_table import write

FOLDER = Path(__file__).parent / "data" / "teachers"
#: Entries from which on a matrix has 8 bits a weight.
LARGE = 100_000
RECORDS = ("training.json", "evaluation.json")
EPISODES = 30


def packed(array: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """An array as the parts that are kept of it."""
    if array.dtype != np.float32:
        return {"": array}
    if array.ndim == 2 and array.size >= LARGE:
        scale = np.abs(array).max(axis=1, keepdims=True) / np.float32(127.0)
        scale = np.maximum(scale, np.finfo(np.float32).tiny)
        return {":levels": np.rint(array / scale).astype(np.int8), ":scale": scale}
    return {":half": array.astype(np.float16)}


def unpacked(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Arrays by name, of the parts of all of them."""
    result = {}
    for key, array in arrays.items():
        name, _, part = key.partition(":")
        if part == "levels":
            result[name] = array.astype(np.float32) * arrays[f"{name}:scale"]
        elif part == "half":
            result[name] = array.astype(np.float32)
        elif not part:
            result[name] = array
    return result


def pack(folder: Path, target: Path) -> None:
    """Write a teacher's folder into a file, and the records in it into one beside it."""
    with safe_open(folder / "policy.safetensors", "np") as stored:
        # Not a dictionary, though it has its keys.
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        described = dict(stored.metadata())
    parts = {
        f"{name}{part}": array
        for name, whole in tensors.items()
        for part, array in packed(whole).items()
    }
    records = {
        name: json.loads((folder / name).read_text("utf-8"))
        for name in RECORDS
        if (folder / name).exists()
    }
    parts["about"] = np.frombuffer(json.dumps(described).encode(), np.uint8)

    def save(path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **parts)

    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, save)
    write(target.with_suffix(".json"), records)


def unpack(source: Path, folder: Path) -> Policy:
    """Write a packed teacher's folder; the policy in it."""
    with np.load(source, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    described = json.loads(arrays.pop("about").tobytes())
    folder.mkdir(parents=True, exist_ok=True)
    records = json.loads(source.with_suffix(".json").read_text("utf-8"))
    for name in set(RECORDS) & set(records):
        write_text(folder / name, json.dumps(records[name], indent=1) + "\n")
    target = folder / "policy.safetensors"
    write_atomically(target, lambda path: save_file(unpacked(arrays), path, described))
    return Policy.load(target)


def main(arguments: list[str] | None = None) -> int:
    """Pack or unpack one teacher."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    one = actions.add_parser("pack", help="into tests/data/teachers")
    one.add_argument("folder", type=Path, help="of a training")
    other = actions.add_parser("unpack", help="into a folder")
    other.add_argument("name", choices=sorted(file.stem for file in FOLDER.glob("*.npz")))
    other.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    if options.action == "unpack":
        unpack(FOLDER / f"{options.name}.npz", options.out)
        return 0
    facts = json.loads((options.folder / "training.json").read_text("utf-8"))
    library = facts["env_id"].partition("/")[0].lower()
    stem = facts["game"] if library == "ale" else f"{library}-{facts['game']}"
    target = FOLDER / f"{stem}.npz"
    pack(options.folder, target)
    policy = unpack(target, options.folder / "packed")
    played = eventsim.evaluate(policy, episodes=EPISODES, seed=20_000)
    record = target.with_suffix(".json")
    returns = {"first_seed": 20_000, "returns": list(played.returns), "mean": played.mean}
    write(record, json.loads(record.read_text("utf-8")) | {"as_packed": returns})
    print(f"{target.name}: {target.stat().st_size:,} bytes, return {played.mean:.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
