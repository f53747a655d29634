"""A raster of 10^7 events, tracks included, in under 10 s and 1 GiB."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_ten_million_events(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="peak memory is read by the module resource")
    picture = tmp_path / "raster.png"
    done = subprocess.run(
        [sys.executable, "-m", "tests.raster_scale", "--picture", picture],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["raster"]
    seconds, peak = found["cpu_seconds"], found["peak_bytes"]
    print(f"10^7 events: {seconds:.1f} s of CPU, peak {peak / 2**30:.2f} GiB")
    assert picture.stat().st_size > 10_000
    # CPU seconds, so that what else the machine does is not counted.
    assert seconds < 10.0
    assert peak < 2**30
    assert any("10 000 000 events in 100 000 steps, binned: a cell is" in n for n in found["notes"])
