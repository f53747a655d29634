"""Draw docs/figures/dataflow.png: how data flows through eventsim.

python docs/figures/dataflow.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.figure import Figure  # noqa: TID253
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch  # noqa: TID253

BOXES = {
    # name: (x, y, width, text, detail, grey)
    "agent": (0.2, 4.4, 2.3, "trained agent", "SB3 zip, RL-Zoo folder", 1.0),
    "file": (0.2, 3.0, 2.3, "policy file", "safetensors + JSON", 1.0),
    "policy": (4.2, 3.7, 2.5, "Policy", "encoder, Network, decoder", 0.88),
    "tools": (4.2, 5.2, 2.5, "prune, calibrate", "weights, thresholds", 0.88),
    "env": (4.2, 2.2, 2.5, "Gymnasium env", "observation, action", 1.0),
    "compile": (8.6, 4.4, 2.3, "compile", "flat arrays", 0.78),
    "simulator": (8.6, 3.0, 2.3, "Simulator", "engine: Numba kernels", 0.78),
    "trace": (8.6, 1.6, 2.3, "trace", "counters, events, hooks", 0.78),
    "analysis": (12.1, 3.0, 2.3, "analysis", "sparsity, energy, raster", 0.88),
    "out": (12.1, 1.6, 2.3, "run folder", "json, parquet, png", 1.0),
}
ARROWS = [
    # from, to, label, both ways
    ("agent", "policy", "import", False),
    ("file", "policy", "load, save", True),
    ("tools", "policy", "", True),
    ("policy", "compile", "network", False),
    ("compile", "simulator", "", False),
    ("policy", "simulator", "input, output", True),
    ("policy", "env", "", True),
    ("simulator", "trace", "", False),
    ("trace", "analysis", "", False),
    ("analysis", "out", "", False),
]
HEIGHT = 0.86


def draw() -> Figure:
    """Return the figure."""
    figure = Figure(figsize=(11, 4.0))
    ax = figure.add_axes((0.01, 0.02, 0.98, 0.96))
    ax.set_xlim(0, 14.6)
    ax.set_ylim(1.4, 6.2)
    ax.axis("off")
    for x, y, width, text, detail, grey in BOXES.values():
        ax.add_patch(
            FancyBboxPatch(
                (x, y),
                width,
                HEIGHT,
                boxstyle="round,pad=0.03,rounding_size=0.12",
                facecolor=str(grey),
                edgecolor="black",
                linewidth=1.0,
            )
        )
        ax.text(x + width / 2, y + 0.57, text, ha="center", va="center", fontsize=11, weight="bold")
        ax.text(x + width / 2, y + 0.25, detail, ha="center", va="center", fontsize=8.5)
    for source, target, label, both in ARROWS:
        start, end = _ends(source, target)
        ax.add_patch(
            FancyArrowPatch(
                start,
                end,
                arrowstyle="<|-|>" if both else "-|>",
                mutation_scale=13,
                color="black",
                linewidth=1.1,
            )
        )
        if label:
            middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
            ax.text(*middle, label, fontsize=8.5, ha="center", va="center", bbox=box)
    return figure


def _ends(source: str, target: str) -> tuple[tuple[float, float], tuple[float, float]]:
    ax, ay, aw = BOXES[source][:3]
    bx, by, bw = BOXES[target][:3]
    if abs(ax - bx) < 0.1:  # one above the other
        if ay > by:
            return (ax + aw / 2, ay - 0.05), (bx + bw / 2, by + HEIGHT + 0.05)
        return (ax + aw / 2, ay + HEIGHT + 0.05), (bx + bw / 2, by - 0.05)
    return (ax + aw + 0.05, ay + HEIGHT / 2), (bx - 0.05, by + HEIGHT / 2)


def main(folder: str | Path = Path(__file__).parent) -> Path:
    """Draw into `folder` and return the file."""
    path = Path(folder) / "dataflow.png"
    draw().savefig(path, dpi=150)
    return path


if __name__ == "__main__":
    main(*sys.argv[1:])
