"""Record what other estimators of energy say of the step in docs/energy.md.

In two environments, since syops needs an old SpikingJelly; `make reference` makes both:

    python -m venv old
    old/bin/pip install syops==0.0.5 spikingjelly==0.0.0.0.12 progress torchvision
    old/bin/python tests/reference_energy.py syops
    python -m venv new
    new/bin/pip install spikingjelly==2.0.0 keras-spiking==0.3.0 tensorflow-cpu tf_keras
    new/bin/python tests/reference_energy.py keras-spiking
    new/bin/python tests/reference_energy.py spikingjelly

write tests/data/energy_peers.json, which tests/analysis/test_energy_peers.py holds the docs to;
--check compares with what was recorded instead, and writes nothing. One at a time: TensorFlow and
torch cannot share a process.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import torch

OUT = Path(__file__).parent / "data" / "energy_peers.json"

# The step of docs/energy.md: the inputs that are now there, and the weights.
HIDDEN = np.array([[-8.0, 2.0], [3.0, 0.0], [4.0, 5.0]])
OUTPUT = np.ones((1, 3))
INPUTS = np.array([[1.0, 1.5]])
# The same network where a comparison is about binary inputs.
BINARY = np.array([[0.0, 1.0]])


def module() -> torch.nn.Sequential:
    """Return the network in torch."""
    layers = [torch.nn.Linear(2, 3, bias=False), torch.nn.ReLU(), torch.nn.Linear(3, 1, bias=False)]
    with torch.no_grad():
        for layer, weights in ((layers[0], HIDDEN), (layers[2], OUTPUT)):
            layer.weight.copy_(torch.from_numpy(weights))
    return torch.nn.Sequential(*layers)


def keras_spiking() -> dict[str, Any]:
    """Joules an inference by ModelEnergy, and what it counts."""
    import keras_spiking
    import tensorflow as tf

    inputs = tf.keras.Input(2)
    hidden = tf.keras.layers.Dense(3, activation="relu", use_bias=False)
    output = tf.keras.layers.Dense(1, use_bias=False)
    model = tf.keras.Model(inputs, output(hidden(inputs)))
    hidden.set_weights([HIDDEN.T])
    output.set_weights([OUTPUT.T])
    # One inference is one step of a second: rates are spikes a second, activations stand for them.
    energy = keras_spiking.ModelEnergy(model, example_data=INPUTS.astype(np.float32))
    devices = ("loihi", "spinnaker", "spinnaker2", "cpu", "gpu", "arm")
    return {
        device: energy.total_energy(device, timesteps_per_inference=1, dt=1.0) for device in devices
    }


def syops(inputs: np.ndarray) -> dict[str, Any]:
    """Operations of a forward pass as syops counts them: all, ACs and MACs."""
    from syops import get_model_complexity_info

    data = [(torch.from_numpy(inputs).float(), torch.zeros(1))]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        (total, acs, macs, _), _ = get_model_complexity_info(
            module(), (2,), data, as_strings=False, print_per_layer_stat=False
        )
    return {"operations": float(total), "acs": float(acs), "macs": float(macs)}


def spikingjelly(inputs: np.ndarray) -> dict[str, Any]:
    """The report of SpikingJelly's simple energy model, in pJ."""
    from spikingjelly.activation_based.op_counter import estimate_simple_energy

    report = estimate_simple_energy(module(), torch.from_numpy(inputs).float())
    return {
        "mac_pj": report.energy_mac_pj,
        "ac_pj": report.energy_ac_pj,
        "memory_pj": report.energy_memory_pj,
        "total_pj": report.energy_total_pj,
        "parts_pj": report.breakdown_pj,
        "counts": report.counts,
    }


def both(ask: Callable[[np.ndarray], dict[str, Any]]) -> dict[str, Any]:
    """Ask about a step of graded inputs, and of binary ones."""
    return {"graded": ask(INPUTS), "binary": ask(BINARY)}


PEERS: dict[str, Callable[[], dict[str, Any]]] = {
    "keras-spiking": keras_spiking,
    "syops": lambda: both(syops),
    "spikingjelly": lambda: both(spikingjelly),
}


def main() -> None:
    """Write the file, or compare with it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("peer", choices=list(PEERS))
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    options = parser.parse_args()
    data = json.loads(OUT.read_text(encoding="utf-8")) if OUT.is_file() else {}
    name = options.peer
    found = {"version": version(name), **json.loads(json.dumps(PEERS[name]()))}
    if options.check:
        if data[name] != found:
            raise SystemExit(f"{name} says otherwise than {OUT.name}: {found}")
        print(f"{name}: as recorded")
        return
    temporary = OUT.with_suffix(".tmp")
    temporary.write_text(json.dumps({**data, name: found}, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, OUT)


if __name__ == "__main__":
    main()
