"""Films of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image

import eventsim
from eventsim.analysis.video import Film
from eventsim.errors import InputError, OutputError
from eventsim.models.decoders import Argmax
from eventsim.models.encoders import BoxSpec, Encoder
from eventsim.models.policy import Policy
from eventsim.network import Network
from eventsim.simulator import Simulator
from eventsim.stack import Stack

SUFFIXES = [".gif", pytest.param(".mp4", marks=pytest.mark.slow)]


def length(path: Path) -> int:
    """Frames of a film."""
    if path.suffix == ".gif":
        with Image.open(path) as image:
            assert image.size[0] % 2 == image.size[1] % 2 == 0
            return image.n_frames
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="needs the extra 'video'")
    return ffmpeg.count_frames_and_secs(path)[0]


def needs(suffix: str) -> None:
    if suffix == ".mp4":
        pytest.importorskip("imageio_ffmpeg", reason="needs the extra 'video'")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_frame_a_step_of_even_size(suffix: str, tmp_path: Path) -> None:
    needs(suffix)
    rng = np.random.default_rng(0)
    stack = Stack((1, 8, 9)).convolution(rng.normal(size=(3, 1, 3, 3)), None, 2).activation("relu")
    network = stack.flatten().linear(rng.normal(size=(2, 36))).network()
    film = Film(tmp_path / f"run{suffix}", seconds=0.1, max_frames=4)
    simulator = Simulator(network, [film], engine="reference")
    for k in range(6):
        simulator.step(rng.normal(size=72))
        film.frame(np.full((21, 16, 3), 40 * k, np.uint8))
    film.close()
    assert length(tmp_path / f"run{suffix}") == film.n_frames == 4
    assert [p.name for p in tmp_path.iterdir()] == [f"run{suffix}"]


def test_colours_say_where_the_events_were(tmp_path: Path) -> None:
    network = Network.from_arrays([np.eye(4)])
    film = Film(tmp_path / "run.gif")
    simulator = Simulator(network, [film], engine="reference")
    simulator.step([1.0, 0.0, -1.0, 0.0])
    panel = film._panels[0]
    np.testing.assert_array_equal(panel.cells, [1.0, 0.0, -1.0, 0.0])
    assert panel.events == 2
    cells = panel.picture()[:: panel.scale, :: panel.scale].reshape(4, 3).astype(int)
    assert cells[0, 2] > cells[0, 0] + 50  # blue
    assert cells[2, 0] > cells[2, 2] + 50  # orange
    assert (cells[1] == cells[3]).all()
    film.frame(np.zeros((4, 4, 3), np.uint8))
    simulator.step([1.0, 0.0, -1.0, 0.0])
    assert 0.0 < panel.cells[0] < 1.0
    assert panel.events == 0


def test_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.mp4 or \.gif"):
        Film(tmp_path / "run.avi")
    film = Film(tmp_path / "run.gif")
    with pytest.raises(InputError, match="rgb_array"):
        film.frame(None)
    film = Film(tmp_path / "missing" / "run.gif")
    film.frame(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(OutputError, match="cannot be written"):
        film.close()


class Blinking(gym.Env[Any, Any]):
    """Four steps of numbers, and pictures if they are asked for."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gym.spaces.Box(-1.0, 1.0, (3,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.t = 0

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:  # type: ignore[override]
        super().reset(seed=options.get("seed"))
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self.observation_space.sample(), 1.0, self.t == 4, False, {}

    def render(self) -> Any:
        return np.full((10, 14, 3), 50 * self.t, np.uint8)


def test_pictures_of_floats_are_as_those_of_bytes(tmp_path: Path) -> None:
    levels = np.linspace(0.0, 1.0, 48).reshape(4, 4, 3)
    for name, picture in (("floats", levels), ("bytes", np.rint(255 * levels).astype(np.uint8))):
        film = Film(tmp_path / f"{name}.gif")
        film.frame(picture)
        film.close()
    assert (tmp_path / "floats.gif").read_bytes() == (tmp_path / "bytes.gif").read_bytes()
    with pytest.raises(InputError, match="rgb_array"):
        Film(tmp_path / "run.gif").frame(300.0 * levels)


def test_a_run_films_its_first_episode(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    network = Network.from_arrays([rng.normal(size=(5, 3)), rng.normal(size=(2, 5))])
    policy = Policy(Encoder(BoxSpec((3,))), network, Argmax(2))
    path = tmp_path / "run.gif"
    result = eventsim.run(
        policy, Blinking("rgb_array"), episodes=2, progress=False, video=path, engine="reference"
    )
    assert length(path) == 4
    assert result.to_dict()["steps"] == 8
    with pytest.raises(InputError, match="render_mode"):
        eventsim.run(policy, Blinking(), episodes=1, progress=False, video=path)
