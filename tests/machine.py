"""Describe the machine and the command behind a measurement."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import sys
from pathlib import Path


def cpu() -> str:
    """Model name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def describe(*libraries: str, module: str) -> dict[str, object]:
    """Machine, versions, date and command, for a file of results."""
    arguments = " ".join(sys.argv[1:])
    return {
        "date": datetime.date.today().isoformat(),
        "command": f"python -m {module} {arguments}".strip(),
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in libraries},
        },
    }
