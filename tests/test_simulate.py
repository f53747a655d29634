"""The command `eventsim simulate`, and its JSON."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from eventsim import Trace
from eventsim.builders import balanced
from eventsim.cli import app
from eventsim.errors import InputError, UnknownNameError
from eventsim.simulate import Intervals, simulate
from eventsim.trace import Events
from tests.run_schema import undocumented


def test_the_command_writes_and_prints(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    out = tmp_path / "out"
    options = [
        "--neurons",
        "200",
        "--indegree",
        "20",
        "--spikes",
        "2000",
        "--seed",
        "3",
        "--json",
        "--device",
        "loihi",
    ]
    done = CliRunner().invoke(app, ["simulate", "balanced", *options, "--out", str(out)])
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    file = resources.files("eventsim") / "schemas" / "eventsim-simulate-1.schema.json"
    schema = json.loads(file.read_text(encoding="utf-8"))
    jsonschema.validate(data, schema, cls=jsonschema.Draft202012Validator)
    assert undocumented(data, schema, schema) == []
    assert json.loads((out / "simulate.json").read_text()) == data
    assert (out / "raster.png").stat().st_size > 5000
    assert data["spikes"] == 2000
    assert data["synaptic_events"] == 40_000
    assert data["rate_hz"] == pytest.approx(10.0 / data["simulated_seconds"])
    times = Trace(out).events.to_numpy(["time"])["time"]
    assert times.size == 2000
    assert times[-1] == pytest.approx(data["simulated_seconds"])


def test_intervals_do_not_depend_on_chunks(rng: np.random.Generator) -> None:
    network = balanced(10, 2)
    times = np.cumsum(rng.exponential(1.0, 300))
    who = rng.integers(0, 10, 300)
    expected = []
    for i in range(10):
        gaps = np.diff(times[who == i])
        expected.append(gaps.std() / gaps.mean())
    for size in (300, 7):
        hook = Intervals(network)
        for k in range(0, 300, size):
            part = slice(k, k + size)
            zeros = np.zeros(times[part].size, np.int64)
            hook.on_events(Events(zeros, times[part], zeros, who[part], np.ones(zeros.size)))
        assert hook.cv == pytest.approx(np.mean(expected))
    assert Intervals(network).cv is None


def test_what_cannot_be_simulated_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="balanced or excitatory-inhibitory"):
        simulate("ring")
    with pytest.raises(InputError, match="of lif neurons"):
        simulate("excitatory-inhibitory", model="qif")
    with pytest.raises(InputError, match="spikes"):
        simulate("balanced", spikes=0)
