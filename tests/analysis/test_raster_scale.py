"""A raster of 10^7 events, tracks included, in under 10 s and 1 GiB."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

CODE = """
import json, resource, sys, time
import numpy as np
from eventsim.analysis.raster import raster
rng = np.random.default_rng(0)
n, steps, sizes = 10_000_000, 100_000, np.array([24, 400, 300])
population = rng.integers(0, 3, n, dtype=np.int64)
events = {
    "step": np.sort(rng.integers(0, steps, n)),
    "population": population,
    "neuron": (rng.random(n) * sizes[population]).astype(np.int64),
    "value": rng.normal(size=n),
}
begin = time.process_time()
ax = raster(
    events, [("input", 24), ("hidden1", 400), ("hidden2", 300)], steps=steps,
    rewards=rng.normal(size=steps), observations=rng.normal(size=(steps, 8)).cumsum(axis=0),
)
ax.figure.savefig(sys.argv[1])
seconds = time.process_time() - begin
unit = 1 if sys.platform == "darwin" else 1024
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
notes = [text.get_text() for text in ax.texts]
print(json.dumps({"seconds": seconds, "peak": peak, "notes": notes}))
"""


@pytest.mark.slow
def test_ten_million_events(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="peak memory is read by the module resource")
    picture = tmp_path / "raster.png"
    done = subprocess.run(
        [sys.executable, "-c", CODE, picture], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(f"10^7 events: {found['seconds']:.1f} s of CPU, peak {found['peak'] / 2**30:.2f} GiB")
    assert picture.stat().st_size > 10_000
    # CPU seconds, so that what else the machine does is not counted.
    assert found["seconds"] < 10.0
    assert found["peak"] < 2**30
    assert any("10 000 000 events in 100 000 steps, binned: a cell is" in n for n in found["notes"])
