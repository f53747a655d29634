"""The command ``eventsim optimize``: from a trained policy to the cheapest that does the job.

As in `eventsim.cli`, everything heavy is imported inside the command.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from eventsim.errors import InputError

PolicyArgument = Annotated[
    str,
    typer.Argument(
        metavar="POLICY",
        help="A name of the zoo, a saved policy, a Stable-Baselines3 zip, or an RL Zoo folder.",
    ),
]
EnvOption = Annotated[
    str | None,
    typer.Option("--env", metavar="ID", help="Environment, as gymnasium.make takes it."),
]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", metavar="FILE", help="Where the policy is written.")
]


def optimize(
    policy: PolicyArgument,
    out: OutOption,
    env: EnvOption = None,
    max_loss: Annotated[
        float,
        typer.Option(
            "--max-loss", metavar="L", help="Largest (teacher - policy) / (teacher - random)."
        ),
    ] = 0.01,
    budget: Annotated[
        str, typer.Option("--budget", metavar="TIME", help="Such as 90s, 20m or 1h30m.")
    ] = "20m",
    weight_bits: Annotated[
        int, typer.Option("--weight-bits", metavar="32|8|4", help="Bits of a weight.")
    ] = 32,
    seed: Annotated[int, typer.Option("--seed", help="Of the optimisation.")] = 0,
    workdir: Annotated[
        Path | None,
        typer.Option(
            "--workdir", metavar="DIR", help="State, to continue from; default FILE's, with .work."
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", metavar="N", help="Processes that play test episodes.")
    ] = 1,
    json: Annotated[
        bool, typer.Option("--json", help="Print the outcome alone on stdout, all else on stderr.")
    ] = False,
) -> None:
    """Shrink, prune, distil and tune a policy to a promised return."""
    from eventsim import api, console

    _check_out(out)
    errors = console.console(stderr=True)
    if not console.kernels_are_cached():
        errors.print("compiling kernels (first run only)...")
    try:
        outcome = api.optimize(
            policy,
            env,
            out=out,
            max_loss=max_loss,
            budget=budget,
            weight_bits=weight_bits,
            seed=seed,
            workdir=workdir,
            jobs=jobs,
            progress=True,
        )
    except KeyboardInterrupt:
        errors.print("interrupted; the same command continues from here")
        raise typer.Exit(130) from None
    to = errors if json else console.console()
    console.show_table(to, outcome.table())
    to.print(f"Written to {', '.join(map(str, outcome.files))}")
    if json:
        sys.stdout.write(outcome.to_json())


def finetune(
    policy: PolicyArgument,
    out: OutOption,
    env: EnvOption = None,
    steps: Annotated[
        int, typer.Option("--steps", metavar="N", help="Environment steps.")
    ] = 100_000,
    sparsity: Annotated[
        float | None,
        typer.Option("--sparsity", metavar="S", help="Share of the weights to prune on the way."),
    ] = None,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", metavar="R", help="Of the actor.")
    ] = 1e-4,
    algorithm: Annotated[
        str | None,
        typer.Option("--algorithm", metavar="NAME", help="PPO, SAC, TD3 or DQN; default its own."),
    ] = None,
    critic: Annotated[
        Path | None,
        typer.Option(
            "--critic", metavar="AGENT", help="Agent whose critic SAC or TD3 starts from."
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            metavar="POLICY",
            help="One that plays the same, kept to at first; for policies with convolutions.",
        ),
    ] = None,
    last_layer: Annotated[
        bool,
        typer.Option(
            "--last-layer",
            help="Only the last layer learns, for rare rewards; for policies with convolutions.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of the training.")] = 0,
) -> None:
    """Let a pruned policy learn on by reinforcement, masks and thresholds in the loop."""
    from eventsim import api, console

    _check_out(out)
    try:
        tuned = api.finetune(
            policy,
            env,
            steps=steps,
            sparsity=sparsity,
            learning_rate=learning_rate,
            algorithm=algorithm,
            critic=critic,
            teacher=teacher,
            last_layer=last_layer,
            seed=seed,
            progress=True,
        )
    except KeyboardInterrupt:
        console.console(stderr=True).print("interrupted; nothing was written")
        raise typer.Exit(130) from None
    tuned.save(out)
    console.show_policy(console.console(), tuned, str(out))


def _check_out(out: Path) -> None:
    from eventsim.output import prepare_folder

    if out.suffix != ".safetensors":
        raise InputError(
            f"is '{out}'; a policy is written as .safetensors, give it that suffix", field="out"
        )
    prepare_folder(out.parent)
