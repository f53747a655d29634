"""Make the shipped policies: optimise each teacher, and keep it beside what came of it.

``models/zoo/train.py`` leaves one folder a teacher; one call here makes all policies of them, and
writes their table into the documentation::

    python -m eventsim.zoo_build --teachers teachers --out models/zoo --table docs/zoo.md

Of the teacher of CartPole-v1 come ``cartpole-dense``, itself, and ``cartpole``, what
`eventsim.optimize_run.optimize` makes of it. The returns that are reported are those of the fresh
seeds of its promise, which no stage has seen. A build that was interrupted continues.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eventsim import __version__, summary
from eventsim.errors import EventsimError, FileFormatError, InputError
from eventsim.models import zoo
from eventsim.models.arena import Arena
from eventsim.models.importers import load_policy
from eventsim.models.policy import Policy
from eventsim.models.pruning import connection_sparsity
from eventsim.optimize_run import optimize
from eventsim.optimize_state import Settings, seconds_of
from eventsim.output import prepare_folder, write_atomically, write_text
from eventsim.tables import factor, number

_BEGIN, _END = "<!-- table: begin -->", "<!-- table: end -->"
#: What is kept of the outcome, as docs/optimize.md explains it.
_KEPT = (
    "small_dense",
    "gain_over_small_dense",
    "factors",
    "promise_holds",
    "weight_bits",
    "seconds",
    "seeds",
)


def build(
    teacher: Policy,
    training: Mapping[str, Any],
    folder: Path,
    settings: Settings,
    *,
    effort: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Policy]:
    """Optimise one teacher.

    Parameters
    ----------
    teacher : Policy
    training : mapping
        Its ``training.json``.
    folder : Path
        For what the optimisation leaves; with the same one it continues.
    settings : Settings
        Loss, budget, bits and seed.
    effort : mapping, optional
        As `eventsim.optimize_run.optimize` takes it; without it the defaults.
    say : callable, optional
        Told how far it is.

    Returns
    -------
    dict of str to Policy
        The event-driven policy and the dense teacher by their names in the zoo; their metadata hold
        all that docs/zoo.md lists.

    Raises
    ------
    InputError
        If the teacher is not better than random actions, the budget is too small, or no policy was
        found whose promise holds.
    """
    env_id = str(training["env"])
    name = zoo_name(env_id)
    both = {
        "env_id": env_id,
        "notes": [],  # the import guessed what the training's record states
        "training": _without_episodes(training),
        "build_versions": _versions(),
    }
    teacher = teacher.with_metadata(**both)
    outcome = optimize(
        teacher,
        out=folder / f"{name}.safetensors",
        settings=settings,
        name=zoo.dense_name(name),
        effort=effort,
        say=say,
    )
    data = outcome.data
    if not data["promise_holds"]:
        raise InputError(
            f"no policy was shown to lose at most {100 * settings.max_loss:g}% (the bound is "
            f"{100 * data['relative_loss']['upper95']:.3g}%); give a larger budget, or another "
            "seed",
            where=f"teacher of '{env_id}'",
        )
    first, last = data["seeds"]["test"]
    seeds = range(first, last + 1)
    log = folder / f"{name}.work" / "episodes.jsonl"
    with Arena(teacher, log=log) as arena:  # all but random actions is in the log
        mine = [arena.outcome(outcome.policy, seed).total for seed in seeds]
        taught = [arena.taught(seed).total for seed in seeds]
        random = [arena.random(seed).total for seed in seeds]
    both |= {
        "teacher_returns": _returns(taught, seeds),
        "random_returns": _returns(random, seeds),
    }
    optimized = {key: data[key] for key in _KEPT}
    event = outcome.policy.with_metadata(
        name=name,
        returns=_returns(mine, seeds),
        **both,
        relative_loss=data["relative_loss"],
        reduction=data["reduction"],
        synops_per_step=data["macs"] + data["acs"],
        teacher=zoo.dense_name(name),
        optimize={
            **optimized,
            "max_loss": settings.max_loss,
            "budget": settings.budget,
            "effort": dict(effort or {}),
            "worst_possible_loss": outcome.policy.metadata["optimize"]["worst_possible_loss"],
        },
    )
    dense = teacher.with_metadata(
        name=zoo.dense_name(name), returns=both["teacher_returns"], **both
    )
    return {name: event, zoo.dense_name(name): dense}


def teachers(folder: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Find the teachers that ``train.py`` left below `folder`.

    Returns
    -------
    dict of str to (Path, dict)
        By name in the zoo: the agent's zip and its record.

    Raises
    ------
    FileFormatError
        If there is none, a record is damaged, or there are two of one environment.
    """
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    for file in sorted(folder.rglob("training.json")):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            name, agent = zoo_name(record["env"]), file.with_name(record["agent"])
        except (ValueError, KeyError, TypeError) as error:
            raise FileFormatError("is no record of a training; train again", where=str(file)) from (
                error
            )
        if name in found:
            raise FileFormatError(
                f"is a second teacher of {record['env']}; leave one in the folder", where=str(file)
            )
        found[name] = (agent, record)
    if not found:
        raise FileFormatError(
            "holds no training.json; run python -m eventsim.models.zoo.train", where=str(folder)
        )
    return found


def table() -> str:
    """Return the shipped policies as a Markdown table, from their metadata."""
    lines = [
        "| policy | environment | return of the teacher | event-driven | random actions | "
        "relative loss, bound | dense MACs | smallest dense | MACs a step | reduction | "
        "against the smallest dense | weights pruned | file, teacher's |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in zoo.paired():
        policy = zoo.load(name)
        m = policy.metadata
        made, loss = m["optimize"], m["relative_loss"]
        small = made["small_dense"]
        sizes = [zoo.path(n).stat().st_size / 1000 for n in (name, m["teacher"])]
        cells = (
            f"`{name}`",
            m["env_id"],
            *(_interval(m[key]) for key in ("teacher_returns", "returns", "random_returns")),
            # Rounded first: adding 0.0 turns -0.0 into 0.0.
            f"{round(100 * loss['mean'], 2) + 0.0:.2f}%, {100 * loss['upper95']:.2f}%",
            f"{m['teacher_dense_macs']:,}",
            "–" if small is None else f"{small['macs']:,} ({'-'.join(map(str, small['shape']))})",
            number(m["synops_per_step"]),
            factor(m["reduction"]),
            factor(made["gain_over_small_dense"]),
            f"{connection_sparsity(policy.network):.1%}",
            f"{sizes[0]:.1f} kB, {sizes[1]:.1f} kB",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write_table(file: Path) -> None:
    """Replace the table between the marks in a Markdown file.

    Raises
    ------
    FileFormatError
        If the file or its marks are missing.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise FileFormatError(f"cannot be read ({error.strerror})", where=str(file)) from error
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise FileFormatError(f"lacks the marks {_BEGIN} and {_END}", where=str(file))
    filled = f"{before}{begin}\n{table()}{end}{after}"
    write_atomically(file, lambda path: write_text(path, filled))


def zoo_name(env_id: str) -> str:
    """Return the name in the zoo of what acts in an environment."""
    return env_id.rpartition(":")[2].rpartition("-v")[0].lower()


def _interval(returns: Mapping[str, Any]) -> str:
    low, high = returns["ci95"]
    return f"{returns['mean']:.1f} [{low:.1f}, {high:.1f}]"


def _returns(values: Sequence[float], seeds: range) -> dict[str, Any]:
    figures = summary.returns(values)
    figures.pop("per_episode")
    return {**figures, "episodes": len(values), "seeds": [seeds.start, seeds.stop - 1]}


def _without_episodes(training: Mapping[str, Any]) -> dict[str, Any]:
    """The record of the training, without the single returns."""
    evaluation = {k: v for k, v in training["evaluation"].items() if k != "per_episode"}
    return {**training, "evaluation": evaluation}


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("numpy", "numba", "gymnasium", "torch")
    return {
        "eventsim": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of this module; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m eventsim.zoo_build", description="Make the policies of the zoo."
    )
    parser.add_argument("--teachers", type=Path, help="folder of what train.py left")
    parser.add_argument("--out", type=Path, help="folder for the policies")
    parser.add_argument("--work", type=Path, default=Path("runs/zoo"), help="to continue from")
    parser.add_argument("--only", action="append", metavar="NAME", help="such as cartpole")
    parser.add_argument("--budget", default="15m", help="of each optimisation (default 15m)")
    parser.add_argument("--seed", type=int, default=0, help="of each optimisation")
    parser.add_argument("--table", type=Path, help="Markdown file to write the table into")
    options = parser.parse_args(argv)
    try:
        if options.teachers is not None:
            if options.out is None:
                parser.error("--teachers needs --out")
            settings = Settings(budget=seconds_of(options.budget), seed=options.seed)
            work = prepare_folder(options.work)
            for name, (agent, training) in teachers(options.teachers).items():
                if options.only is None or name in options.only:
                    teacher = load_policy(agent, env=training["env"])
                    made = build(teacher, training, work, settings, say=_say)
                    for each, policy in made.items():
                        policy.save(options.out / f"{each}.safetensors")
        if options.table is not None:
            write_table(options.table)
    except EventsimError as error:
        parser.exit(2, f"{error}\n")
    return 0


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    raise SystemExit(main())
