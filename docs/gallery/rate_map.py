"""Rates over time: python docs/gallery/rate_map.py [FOLDER]."""

from __future__ import annotations

import sys
from pathlib import Path

from example import EPISODE_LENGTHS, example

from eventsim.analysis.plots import rate_map


def main(folder: str | Path = Path(__file__).parent) -> Path:
    """Draw into `folder` and return the file."""
    run = example()
    ax = rate_map(
        run.events,
        run.network,
        episode_lengths=EPISODE_LENGTHS,
        window=5,
        title="How busy the layers are over time",
    )
    path = Path(folder) / "rate_map.png"
    ax.figure.savefig(path, dpi=110)
    return path


if __name__ == "__main__":
    main(*sys.argv[1:])
