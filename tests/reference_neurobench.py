"""Record what NeuroBench says of the cases in neurobench_cases.py.

In an environment of its own, since NeuroBench pulls in half a gigabyte:

    python -m venv venv && venv/bin/pip install neurobench==2.3.0
    venv/bin/python tests/reference_neurobench.py [--check]

writes tests/data/neurobench.json, against which tests/analysis/test_neurobench.py holds
eventsim.analysis.neurobench; --check compares with what was recorded instead, and writes nothing.
`make reference` does that.
"""

from __future__ import annotations

import argparse
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import snntorch
import torch
from neurobench.benchmarks import Benchmark
from neurobench.metrics.static import ConnectionSparsity, Footprint, ParameterCount
from neurobench.metrics.workload import ActivationSparsity, MembraneUpdates, SynapticOperations
from neurobench.models import SNNTorchModel, TorchModel
from neurobench_cases import Case, cases
from torch.utils.data import DataLoader, TensorDataset

OUT = Path(__file__).parent / "data" / "neurobench.json"
ACTIVATIONS = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh, "sigmoid": torch.nn.Sigmoid}
METRICS = [
    [Footprint, ConnectionSparsity, ParameterCount],
    [ActivationSparsity, SynapticOperations, MembraneUpdates],
]


def figures(case: Case) -> dict[str, Any]:
    """Build the case as a torch model and run NeuroBench's harness on it."""
    dtype = torch.float32 if case.single else torch.float64
    layers: list[torch.nn.Module] = []
    for w, b in zip(case.weights, case.biases, strict=True):
        linear = torch.nn.Linear(w.shape[1], w.shape[0], bias=b is not None, dtype=dtype)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(w))
            if b is not None:
                linear.bias.copy_(torch.from_numpy(b))
        layers += [linear, ACTIVATIONS[case.activation]()]
    model = TorchModel(torch.nn.Sequential(*layers[:-1]))
    if case.registered:
        known = tuple(model.activation_modules)
        if ACTIVATIONS[case.activation] not in known:
            model.add_activation_module(ACTIVATIONS[case.activation])
    x = torch.from_numpy(case.inputs).to(dtype)
    loader = DataLoader(TensorDataset(x, torch.zeros(len(x))), batch_size=case.batch_size)
    return {"digest": case.digest(), **Benchmark(model, loader, [], [], METRICS).run(quiet=True)}


class Spiking(torch.nn.Module):
    """One layer of leaky integrate-and-fire neurons that keep their state."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(5, 4, bias=False)
        self.lif = snntorch.Leaky(beta=0.9, init_hidden=True, output=True)

    def forward(self, x: torch.Tensor) -> Any:
        return self.lif(self.fc(x))


def spiking() -> dict[str, Any]:
    """Record the potentials of a snnTorch layer, and NeuroBench's figures of it."""
    torch.manual_seed(3)
    net = Spiking()
    with torch.no_grad():
        net.fc.weight.abs_().mul_(3.0)  # so that they fire
        net.fc.weight[torch.rand(4, 5) < 0.3] = 0.0
    model = SNNTorchModel(net)
    spikes = (torch.rand(2, 10, 5) < 0.3).float()
    before: list[Any] = []
    after: list[Any] = []
    net.lif.register_forward_pre_hook(lambda m, _: before.append(m.mem.detach().clone()))
    net.lif.register_forward_hook(lambda m, _, __: after.append(m.mem.detach().clone()))
    loader = DataLoader(TensorDataset(spikes, torch.zeros(2)), batch_size=2)
    results = Benchmark(model, loader, [], [], METRICS).run(quiet=True)

    def plain(potentials: list[Any]) -> list[Any]:
        # Before the first step the potential has no shape yet; NeuroBench leaves it out.
        return torch.stack(
            [p if p.numel() == 8 else torch.zeros(2, 4) for p in potentials]
        ).tolist()

    return {
        "weights": net.fc.weight.tolist(),
        "inputs": spikes.tolist(),
        "before": plain(before),
        "after": plain(after),
        **results,
    }


def main() -> None:
    """Write the file, or compare with it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    check = parser.parse_args().check
    data = {
        "versions": {name: version(name) for name in ("neurobench", "torch", "snntorch")},
        "cases": {case.name: figures(case) for case in cases()},
        "spiking": spiking(),
    }
    if check:
        recorded = json.loads(OUT.read_text(encoding="utf-8"))
        found = json.loads(json.dumps(data))
        for part in ("cases", "spiking"):
            if found[part] != recorded[part]:
                raise SystemExit(f"NeuroBench says otherwise than {OUT.name}: {found[part]}")
        print(
            f"NeuroBench {data['versions']['neurobench']}: as recorded, {len(data['cases'])} cases"
        )
        return
    OUT.parent.mkdir(exist_ok=True)
    temporary = OUT.with_suffix(".tmp")
    temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, OUT)


if __name__ == "__main__":
    main()
