"""The command ``eventsim``.

Everything heavy is imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys
import warnings
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eventsim import __version__, cli_report
from eventsim.cli_bench import bench
from eventsim.cli_energy import energy
from eventsim.cli_optimize import finetune, optimize
from eventsim.cli_simulate import simulate
from eventsim.errors import EventsimError, InputError

if TYPE_CHECKING:
    from eventsim.models.policy import Policy

app = typer.Typer(
    name="eventsim",
    help="Run trained policies event by event, and see what that saves.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_IMPORT = "Reading agents of other libraries"
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
NormalizationOption = Annotated[
    str | None,
    typer.Option(
        "--normalization",
        metavar="FILE|none",
        help="vecnormalize.pkl of the agent.",
        rich_help_panel=_IMPORT,
    ),
]
TimeOption = Annotated[
    bool | None,
    typer.Option(
        "--time-feature/--no-time-feature",
        help="Whether the agent also sees the remaining time.",
        rich_help_panel=_IMPORT,
        show_default=False,
    ),
]
MaxStepsOption = Annotated[
    int | None,
    typer.Option(
        "--max-steps",
        metavar="N",
        min=1,
        help="Steps of a full episode, for --time-feature.",
        rich_help_panel=_IMPORT,
    ),
]
AlgorithmOption = Annotated[
    str | None,
    typer.Option(
        "--algorithm",
        metavar="NAME",
        help="Such as PPO, where the file does not say.",
        rich_help_panel=_IMPORT,
    ),
]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", metavar="FILE", help="Where the policy is written.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Episode i starts from seed + i.")]


class Scope(Enum):
    """What a sparsity is the share of: all weights, or those of each layer."""

    network = "global"
    layer = "layer"


def _version(show: bool) -> None:
    if show:
        typer.echo(f"eventsim {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    pass


@app.command()
def run(
    policy: PolicyArgument,
    env: EnvOption = None,
    episodes: Annotated[int, typer.Option("--episodes", min=1)] = 10,
    seed: SeedOption = 0,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", metavar="X", help="One threshold for all neurons."),
    ] = None,
    threshold_scale: Annotated[
        float | None,
        typer.Option("--threshold-scale", metavar="S", help="Multiplies the stored thresholds."),
    ] = None,
    carry_state: Annotated[
        bool,
        typer.Option("--carry-state", help="Keep the neurons' state between episodes."),
    ] = False,
    no_dense: Annotated[
        bool,
        typer.Option("--no-dense", help="Leave out the dense and the random policy."),
    ] = False,
    device: Annotated[
        list[str] | None,
        typer.Option("--device", metavar="NAME|FILE", help="Energy profile; may be repeated."),
    ] = None,
    step_seconds: Annotated[
        float | None,
        typer.Option("--step-seconds", metavar="S", help="Duration of a step."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Folder for the files of the run."),
    ] = None,
    video: Annotated[
        Path | None,
        typer.Option("--video", metavar="FILE", help="Film of the first episode, .mp4 or .gif."),
    ] = None,
    json: Annotated[
        bool,
        typer.Option("--json", help="Print run.json alone on stdout, all else on stderr."),
    ] = False,
    normalization: NormalizationOption = None,
    time_feature: TimeOption = None,
    max_steps: MaxStepsOption = None,
    algorithm: AlgorithmOption = None,
) -> None:
    """Run a policy event by event in its environment, beside the dense one."""
    if threshold is not None and threshold_scale is not None:
        raise InputError("give --threshold or --threshold-scale, not both")
    from eventsim import console, runner

    errors = console.console(stderr=True)
    loaded = _load(policy, env, normalization, time_feature, max_steps, algorithm)
    if _imported(policy):
        _say_notes(errors, loaded)
    if not console.kernels_are_cached():
        errors.print("compiling kernels (first run only)...")
    try:
        result = runner.run(
            loaded,
            env,
            episodes=episodes,
            seed=seed,
            threshold=threshold,
            threshold_scale=threshold_scale,
            carry_state=carry_state,
            dense=not no_dense,
            devices=device or None,
            step_seconds=step_seconds,
            record_events=out is not None,
            name=policy,
            out=out,
            video=video,
        )
    except KeyboardInterrupt:
        errors.print("interrupted before there was anything to report")
        raise typer.Exit(130) from None
    console.show_run(errors if json else console.console(), result, out)
    if json:
        sys.stdout.write(result.to_json())
    if result.interrupted:
        errors.print("interrupted: the figures are those of the steps until then")
        raise typer.Exit(130)


@app.command("import")
def import_(
    agent: Annotated[
        str, typer.Argument(metavar="ZIP", help="A Stable-Baselines3 zip, or an RL Zoo folder.")
    ],
    out: OutOption,
    env: EnvOption = None,
    normalization: NormalizationOption = None,
    time_feature: TimeOption = None,
    max_steps: MaxStepsOption = None,
    algorithm: AlgorithmOption = None,
) -> None:
    """Turn an agent of another library into a policy file."""
    from eventsim import console

    loaded = _load(agent, env, normalization, time_feature, max_steps, algorithm)
    loaded.save(out)
    console.show_policy(console.console(), loaded, str(out))


@app.command()
def info(
    policy: PolicyArgument,
    env: EnvOption = None,
    normalization: NormalizationOption = None,
    time_feature: TimeOption = None,
    max_steps: MaxStepsOption = None,
    algorithm: AlgorithmOption = None,
) -> None:
    """Show what a policy is made of, where it comes from, and what was assumed."""
    from eventsim import console

    loaded = _load(policy, env, normalization, time_feature, max_steps, algorithm)
    console.show_policy(console.console(), loaded, policy)


@app.command()
def calibrate(
    policy: PolicyArgument,
    out: OutOption,
    threshold_scale: Annotated[
        float,
        typer.Option(
            "--threshold-scale", metavar="S", help="Thresholds in units of the neurons' spread."
        ),
    ],
    env: EnvOption = None,
    sparsity: Annotated[
        float, typer.Option("--sparsity", help="Share of the weights to cut first.")
    ] = 0.0,
    scope: Annotated[Scope, typer.Option("--scope", help="What the share is of.")] = Scope.network,
    refit: Annotated[
        bool,
        typer.Option("--refit", help="Cut in rounds, and refit the others to recorded inputs."),
    ] = False,
    episodes: Annotated[int, typer.Option("--episodes", min=1)] = 5,
    seed: SeedOption = 0,
    normalization: NormalizationOption = None,
    time_feature: TimeOption = None,
    max_steps: MaxStepsOption = None,
    algorithm: AlgorithmOption = None,
) -> None:
    """Prune a policy and set its thresholds from recorded episodes."""
    from eventsim import api, console

    loaded = _load(policy, env, normalization, time_feature, max_steps, algorithm)
    calibrated = api.calibrate(
        loaded,
        env,
        threshold_scale=threshold_scale,
        sparsity=sparsity,
        scope=scope.value,
        refit=refit,
        episodes=episodes,
        seed=seed,
    )
    calibrated.save(out)
    console.show_policy(console.console(), calibrated, str(out))


app.command()(optimize)
app.command()(finetune)
app.command()(energy)
app.command()(bench)
app.command()(simulate)
cli_report.register(app)


@app.command()
def zoo() -> None:
    """List the policies that ship with eventsim."""
    from eventsim import api, console

    console.show_zoo(console.console(), api.zoo())


def main() -> None:
    """Run the command; exit code 2 and one sentence for what the user can mend."""
    warnings.showwarning = _show_warning
    try:
        app()
    except EventsimError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


def _load(
    source: str,
    env: str | None,
    normalization: str | None,
    time_feature: bool | None,
    max_steps: int | None,
    algorithm: str | None,
) -> Policy:
    """Load a policy with the options of the import."""
    from eventsim.models.importers import load_policy

    if max_steps is not None and time_feature is False:
        raise InputError("give --max-steps or --no-time-feature, not both")
    return load_policy(
        source,
        env=env,
        normalization=normalization,
        time_feature=time_feature if max_steps is None else max_steps,
        algorithm=algorithm,
    )


def _imported(source: str) -> bool:
    """Whether the policy is another library's; what an import assumed is news then."""
    from eventsim.models import zoo

    return Path(source).suffix != ".safetensors" and source.lower() not in zoo.names()


def _say_notes(to: Any, policy: Policy) -> None:
    """Say what an import assumed."""
    defaults = policy.metadata.get("defaults_taken") or {}
    for text in (
        *(f"{key}: {value}" for key, value in defaults.items()),
        *(policy.metadata.get("notes") or ()),
    ):
        to.print(f"note: {text}")


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    sys.stderr.write(f"warning: {message}\n")


if __name__ == "__main__":
    main()
