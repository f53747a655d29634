"""How long the first answer takes: import, help, a warm run of one episode.

    python -m tests.startup --out docs/benchmarks/startup.json

Each command runs in a fresh process, in turn with the others; medians and best of all rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.machine import describe

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import eventsim": ["-c", "import eventsim"],
    "eventsim --help": ["-m", "eventsim.cli", "--help"],
    "eventsim run --help": ["-m", "eventsim.cli", "run", "--help"],
    "eventsim zoo": ["-m", "eventsim.cli", "zoo"],
    "eventsim run cartpole --episodes 1": [
        *("-m", "eventsim.cli", "run", "cartpole", "--episodes", "1"),
    ],
}


def main() -> None:
    """Measure and print; write the results if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(options.rounds + 1):
        for name, arguments in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            if number:  # the first round warms the caches
                seconds[name].append(time.perf_counter() - start)
    results = {
        name: {"median_s": statistics.median(values), "best_s": min(values)}
        for name, values in seconds.items()
    }
    for name, figures in results.items():
        print(f"{name:40} median {figures['median_s']:.2f} s, best {figures['best_s']:.2f} s")
    if options.out:
        machine = describe("numpy", "numba", "gymnasium", "typer", module="tests.startup")
        text = json.dumps({"machine": machine, "results": results}, indent=1)
        temporary = options.out.with_suffix(".tmp")
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(options.out)


if __name__ == "__main__":
    main()
