"""How far changes get: python docs/gallery/survival.py [FOLDER]."""

from __future__ import annotations

import sys
from pathlib import Path

from example import example

from eventsim.analysis.plots import survival


def main(folder: str | Path = Path(__file__).parent) -> Path:
    """Draw into `folder` and return the file."""
    run = example()
    evaluations, events = run.counters.table[:, :, 0], run.counters.table[:, :, 1]
    ax = survival(run.network, evaluations, events, title="How far changes get")
    path = Path(folder) / "survival.png"
    ax.figure.savefig(path, dpi=110)
    return path


if __name__ == "__main__":
    main(*sys.argv[1:])
