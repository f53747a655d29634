"""The measurements of spiking networks run, and measure what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventsim import bench_spiking as bench


@pytest.mark.parametrize("model", ["lif", "qif"])
def test_a_case_compares_the_same_spikes(model: str) -> None:
    row = bench.bench_case(bench.Balanced(model, 300, 10), 200, 100, 1, "cpu")
    assert row["spikes_in_the_same_order"] == 100
    assert row["largest_difference_seconds"] < 1e-9
    assert set(row["nanoseconds_per_synaptic_event"]) == {
        "eventsim",
        "sparseprop",
        "floor",
        "scatter_add",
    }
    assert 0.5 < row["rate_hz"] < 20.0


def test_the_other_tables_and_the_figure(tmp_path: Path) -> None:
    row = bench.bench_variants(300, 10, 200, 1, "cpu")
    assert row["times_the_homogeneous"]["homogeneous"] == 1.0
    assert all(0.2 < rate < 50.0 for rate in row["rate_hz"].values())
    assert bench.bench_threads(300, 10, 200, 1)["same_spikes"]
    memory = bench.bench_memory(300, 10)
    assert [m["bytes_per_synapse"] for m in memory] == [4.0, 8.0, 4.0, 8.0]
    rows = [
        {"neurons": n, "degree": 10, "microseconds_per_spike": {"lif": 0.1 * n, "qif": 0.2 * n}}
        for n in (10, 100)
    ]
    bench.figure(rows, tmp_path / "scaling.svg")
    assert (tmp_path / "scaling.svg").stat().st_size > 1000
