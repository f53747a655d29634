"""The network, arrows by synops: python docs/gallery/network_graph.py [FOLDER]."""

from __future__ import annotations

import sys
from pathlib import Path

from example import example

from eventsim.analysis.plots import network_graph, projection_synops


def main(folder: str | Path = Path(__file__).parent) -> Path:
    """Draw into `folder` and return the file."""
    run = example()
    synops = projection_synops(run.network, run.events, steps=len(run.inputs))
    ax = network_graph(run.network, synops, title="Where the work is")
    path = Path(folder) / "network_graph.png"
    ax.figure.savefig(path, dpi=110)
    return path


if __name__ == "__main__":
    main(*sys.argv[1:])
