"""Packed teachers: what is lost, and that they are whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eventsim.models.decoders import Argmax
from eventsim.models.encoders import BoxSpec, Encoder
from eventsim.models.pixels import Pixels
from eventsim.models.policy import Policy
from eventsim.simulator import Simulator
from eventsim.stack import Stack
from tests import teachers


def test_a_packed_teacher_does_nearly_what_it_did(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    stack = Stack((2, 24, 24), scale=1 / 255)
    stack.convolution(drawn(8, 2, 3, 3), drawn(8)).activation("relu")
    stack.flatten().linear(drawn(40, 8 * 22 * 22), drawn(40)).activation("relu")
    network = stack.linear(drawn(3, 40)).network()
    policy = Policy(Encoder(BoxSpec((2, 24, 24), "uint8"), pixels=Pixels()), network, Argmax(3), {})
    folder, file = tmp_path / "trained", tmp_path / "packed.npz"
    folder.mkdir()
    policy.save(folder / "policy.safetensors")
    (folder / "training.json").write_text(json.dumps({"game": "none"}))
    teachers.pack(folder, file)
    assert file.stat().st_size < 0.4 * (folder / "policy.safetensors").stat().st_size
    again = teachers.unpack(file, tmp_path / "again")
    assert json.loads((tmp_path / "again" / "training.json").read_text()) == {"game": "none"}
    x = rng.integers(0, 256, (20, 2 * 24 * 24)).astype(np.uint8)
    expected, got = Simulator(network).run(x), Simulator(again.network).run(x)
    assert np.abs(got - expected).max() < 0.01 * np.abs(expected).max()
    # Nothing more is lost by packing it once more.
    teachers.pack(tmp_path / "again", tmp_path / "twice.npz")
    twice = teachers.unpack(tmp_path / "twice.npz", tmp_path / "twice")
    np.testing.assert_allclose(Simulator(twice.network).run(x), got, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("file", sorted(teachers.FOLDER.glob("*.npz")), ids=lambda f: f.stem)
def test_teachers_of_the_repository_are_whole(file: Path, tmp_path: Path) -> None:
    policy = teachers.unpack(file, tmp_path)
    training = json.loads((tmp_path / "training.json").read_text())
    assert policy.env_id == training["env_id"]
    kept = json.loads(file.with_suffix(".json").read_text())
    assert file.stat().st_size < 2_000_000
    assert training["curve"]
    assert len(kept["as_packed"]["returns"]) == teachers.EPISODES
