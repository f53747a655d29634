"""Raster with tracks: python docs/gallery/raster.py [FOLDER]."""

from __future__ import annotations

import sys
from pathlib import Path

from example import EPISODE_LENGTHS, example

from eventsim.analysis.raster import raster


def main(folder: str | Path = Path(__file__).parent) -> Path:
    """Draw into `folder` and return the file."""
    run = example()
    ax = raster(
        run.events,
        run.network,
        episode_lengths=EPISODE_LENGTHS,
        rewards=run.rewards,
        actions=run.outputs,
        observations=run.inputs[:, [0, 1, 6]],
        title="Every event of two episodes",
    )
    path = Path(folder) / "raster.png"
    ax.figure.savefig(path, dpi=110)
    return path


if __name__ == "__main__":
    main(*sys.argv[1:])
