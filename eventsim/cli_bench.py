"""The command ``eventsim bench``: how fast a policy runs here, beside the dense runtimes.

As in `eventsim.cli`, everything heavy is imported inside the command.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from eventsim.errors import InputError

_BLOCK = 100


def bench(
    policy: Annotated[
        str,
        typer.Argument(metavar="POLICY", help="As for 'eventsim run': a name, file or folder."),
    ],
    env: Annotated[
        str | None,
        typer.Option("--env", metavar="ID", help="Environment, as gymnasium.make takes it."),
    ] = None,
    steps: Annotated[
        int, typer.Option("--steps", min=_BLOCK, help="Observations recorded for it.")
    ] = 1000,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Turns of each runtime.")] = 40,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Time a policy step by step beside onnxruntime, torch and NumPy, one thread each."""
    from eventsim import api, loop
    from eventsim import bench as measuring

    loaded = api.load(policy, env=env)
    world = loop.environment(loaded, env)
    notes: list[str] = []
    try:
        case = measuring.Case(
            Path(policy).name, "policy", loaded.network, measuring.record(loaded, world, steps)
        )
    finally:
        world.close()
    if len(case.inputs) < _BLOCK:
        raise InputError(f"only {len(case.inputs)} steps were recorded; give --steps {_BLOCK}")
    row = measuring.bench_case(case, rounds, _BLOCK, notes.append)
    command = f"eventsim bench {policy} --steps {steps} --rounds {rounds}"
    data = {"schema": "eventsim-bench/1", **measuring.machine(command), **row, "notes": notes}
    if json:
        import json as writer

        sys.stdout.write(writer.dumps(data, indent=1) + "\n")
        return
    _show(data)


def _show(data: dict[str, Any]) -> None:
    from eventsim import console

    to = console.console()
    to.print(f"{data['network']} on {data['cpu']}: microseconds a step, called from Python\n")
    to.print(f"{'runtime':<14}{'median':>9}{'quartiles':>19}{'over eventsim':>16}")
    for name, median in data["microseconds"].items():
        low, high = data["quartiles"][name]
        ratio = f"{data['ratio'][name]:.2f}" if name in data["ratio"] else ""
        to.print(f"{name:<14}{median:>9.2f}{f'{low:.2f} to {high:.2f}':>19}{ratio:>16}")
    to.print(
        f"\na step: {data['evaluations']:g} evaluations, {data['events']:g} events, "
        f"{data['synops']:g} synaptic operations of {data['dense_macs']:,} dense MACs "
        f"(engine '{data['engine']}')"
    )
    for note in data["notes"]:
        to.print(note)
