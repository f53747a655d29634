"""eventsim: run trained policies and spiking networks event by event, and see what it saves.

The public names resolve lazily, so that ``import eventsim`` stays fast.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC: dict[str, str] = {
    "Network": "eventsim.network",
    "Population": "eventsim.network",
    "Projection": "eventsim.network",
    "Input": "eventsim.neurons",
    "Delta": "eventsim.neurons",
    "MaxPool": "eventsim.neurons",
    "activation": "eventsim.neurons",
    "LIF": "eventsim.spiking_neurons",
    "QIF": "eventsim.spiking_neurons",
    "EIF": "eventsim.spiking_neurons",
    "Tabulated": "eventsim.spiking_neurons",
    "PoissonInput": "eventsim.spiking_neurons",
    "SpikeInput": "eventsim.spiking_neurons",
    "ClockedLIF": "eventsim.spiking_neurons",
    "ClockedIF": "eventsim.spiking_neurons",
    "EventsimError": "eventsim.errors",
    "DenseForward": "eventsim.dense",
    "Simulator": "eventsim.simulator",
    "SimulatorState": "eventsim.simulator",
    "Hook": "eventsim.trace",
    "Counters": "eventsim.trace",
    "CounterRecorder": "eventsim.trace",
    "EventRecorder": "eventsim.trace",
    "EnergyHook": "eventsim.trace",
    "ParquetRecorder": "eventsim.recording",
    "EventFunction": "eventsim.event_function",
    "Trace": "eventsim.records",
    "BatchSimulator": "eventsim.batch",
    "Policy": "eventsim.models.policy",
    "load_profile": "eventsim.analysis.energy",
    "report": "eventsim.analysis.report",
    "run": "eventsim.api",
    "evaluate": "eventsim.api",
    "load": "eventsim.api",
    "calibrate": "eventsim.api",
    "finetune": "eventsim.api",
    "optimize": "eventsim.api",
    "prune": "eventsim.api",
    "quantize": "eventsim.models.quantization",
    "from_torch": "eventsim.models.importers.torch_modules",
    "zoo": "eventsim.api",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'eventsim' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
