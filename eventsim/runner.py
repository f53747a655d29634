"""Run a policy event by event in its environment, beside the dense one, and sum it up."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from eventsim import __version__, summary, tables
from eventsim.analysis import energy
from eventsim.analysis.figures import figures
from eventsim.errors import InputError
from eventsim.loop import Played, Recording, Worlds, play
from eventsim.models import rollout
from eventsim.output import prepare_folder
from eventsim.progress import EpisodeBar
from eventsim.recording import ParquetRecorder
from eventsim.result import SCHEMA, Run
from eventsim.run_recording import RunRecorder
from eventsim.trace import EventRecorder, Hook

if TYPE_CHECKING:
    import gymnasium as gym

    from eventsim.analysis.video import Film
    from eventsim.models.policy import Policy
    from eventsim.network import Network

    Env: TypeAlias = gym.Env[Any, Any]

Device: TypeAlias = "str | os.PathLike[str] | energy.Profile"


@dataclass(frozen=True)
class Evaluation:
    """Returns of a policy.

    Attributes
    ----------
    returns : tuple of float
        One an episode.
    """

    returns: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        """Mean return; None without episodes."""
        mean: float | None = summary.returns(self.returns)["mean"]
        return mean

    @property
    def std(self) -> float | None:
        """Standard deviation, with n - 1 in the denominator; None for fewer than two episodes."""
        std: float | None = summary.returns(self.returns)["std"]
        return std

    @property
    def ci95(self) -> tuple[float, float] | None:
        """95 % interval of the mean by Student's t; None for fewer than two episodes."""
        interval = summary.t_interval(self.returns)
        return None if interval is None else (interval[0], interval[1])

    def _repr_html_(self) -> str:
        row = {
            "return": tables.signed(self.mean),
            "interval": tables.interval(self.ci95),
            "std": tables.signed(self.std),
            "episodes": len(self.returns),
        }
        headings = {key: key for key in row} | {"interval": "95 % interval"}
        return tables.plain_table("Return per episode", headings, [row]).to_html()


def evaluate(
    policy: Policy,
    env: str | Env | None = None,
    episodes: int = 10,
    seed: int = 0,
    *,
    dense: bool = False,
    progress: bool | None = None,
) -> Evaluation:
    """Measure the returns of a policy, with nothing else counted or kept.

    Parameters
    ----------
    policy : Policy
    env : str or gymnasium.Env, optional
        Default: the one named in the policy's metadata.
    episodes : int
    seed : int
        Episode i starts from ``env.reset(seed=seed + i)``, the state of the policy reset; an
        environment given by name is made anew for each.
    dense : bool
        Run the dense forward pass instead of the events.
    progress : bool, optional
        Show a bar on stderr; default: on a terminal.

    Raises
    ------
    InputError
        If the environment does not fit the policy, or `episodes` is below 1.
    """
    _check_episodes(episodes)
    with Worlds(policy, env, dense=False) as worlds:
        rollout.check_spaces(policy, worlds.event)
        session = policy.dense_session() if dense else policy.session()
        values = []
        with EpisodeBar(episodes, progress) as bar:
            for i in range(episodes):
                if i:
                    worlds.renew()
                bar.begin(f"episode {i + 1}")
                episode = rollout.episode(
                    session, worlds.event, seed + i, on_step=lambda _: bar.step()
                )
                values.append(episode.total)
                bar.end()
    return Evaluation(tuple(values))


def run(
    policy: Policy,
    env: str | Env | None = None,
    *,
    episodes: int = 10,
    seed: int = 0,
    threshold: float | None = None,
    threshold_scale: float | None = None,
    carry_state: bool = False,
    dense: bool = True,
    devices: Sequence[Device] | None = None,
    hooks: Sequence[Hook] = (),
    record_events: bool = True,
    step_seconds: float | None = None,
    engine: str = "auto",
    progress: bool | None = None,
    out: str | os.PathLike[str] | None = None,
    name: str | None = None,
    video: str | os.PathLike[str] | None = None,
) -> Run:
    """Run a policy event by event in its environment.

    Parameters
    ----------
    policy : Policy
    env : str or gymnasium.Env, optional
        What ``gymnasium.make`` takes, ``"module:Id"`` too, or an environment, which then serves
        the event-driven, the dense and the random policy in turn. Default: the one named in the
        policy's metadata.
    episodes : int
    seed : int
        Episode i starts from ``env.reset(seed=seed + i)``; the dense and the random policy play
        the same ones.
    threshold : float, optional
        One absolute threshold for all populations.
    threshold_scale : float, optional
        Factor on the policy's own thresholds; not together with `threshold`.
    carry_state : bool
        Keep the state of the neurons from one episode to the next; by default every episode
        starts cold, and its first step counts like all others.
    dense : bool
        Run the dense forward pass and random actions on the same seeds too, for the relative
        loss.
    devices : sequence of str, path or Profile, optional
        Energy profiles, by name or TOML file. Default `eventsim.analysis.energy.DEFAULT_DEVICES`.
    hooks : sequence of Hook
        Given to the simulator of the event-driven policy.
    record_events : bool
        Record every event: in memory, or with `out` in its folder while the run goes on.
    step_seconds : float, optional
        Duration of a step, for event times and static energy. Default: as the environment states
        it (`eventsim.models.rollout.step_seconds`); event times then count in steps of 1 if it
        does not.
    engine : str
        As for `Simulator`.
    progress : bool, optional
        Show a bar on stderr; default: on a terminal.
    out : path, optional
        Folder for the files, see `Run.save`. With `record_events` it is written to from the first
        step on, and what an earlier run left there removed; after a kill it opens with
        `eventsim.records.Trace`, and ``eventsim report`` and ``energy`` take it.
    name : str, optional
        What run.json calls the policy; default the name in its metadata, or of its network.
    video : path, optional
        Film of the first episode beside the events of every layer, ``.mp4`` or ``.gif``, see
        `eventsim.analysis.video.Film`.

    Returns
    -------
    Run
        After Ctrl-C, what was recorded until then, with `interrupted` set; the return of the
        episode that was cut is left out, its steps are not.

    Raises
    ------
    InputError
        If the environment does not fit the policy, or an argument is out of range.
    UnknownNameError, MissingDependencyError
        If the environment or a device is not there.
    OutputError
        If `out` cannot be written; said before the run begins.
    KeyboardInterrupt
        If it came before the first step was complete.
    """
    _check_episodes(episodes)
    network = _with_thresholds(policy.network, threshold, threshold_scale)
    profiles = [
        device if isinstance(device, energy.Profile) else energy.load_profile(device)
        for device in (energy.DEFAULT_DEVICES if devices is None else devices)
    ]
    names = [profile.name for profile in profiles]
    if len(set(names)) < len(names):
        raise InputError(f"a device is named twice: {', '.join(names)}", field="devices")
    if step_seconds is not None and not (np.isfinite(step_seconds) and step_seconds > 0.0):
        raise InputError(f"is {step_seconds}; give seconds above 0", field="step_seconds")
    if out is not None:
        folder = prepare_folder(out).resolve()
        recorders = [hook.folder.resolve() for hook in hooks if isinstance(hook, ParquetRecorder)]
        if record_events and folder in recorders:
            raise InputError(
                f"two recorders would write to '{out}': leave out the hook, since a run with a "
                "folder records by itself, or give record_events=False"
            )
    with Worlds(policy, env, dense, video is not None) as worlds:
        rollout.check_spaces(policy, worlds.event)
        seconds, source = rollout.step_seconds(worlds.event)
        if step_seconds is not None:
            seconds, source = step_seconds, "given"
        settings = {
            "policy": name or _name(policy),
            "env": worlds.name,
            "seed": seed,
            "threshold": threshold,
            "threshold_scale": threshold_scale,
            "carry_state": carry_state,
            "step_seconds": seconds,
            "step_seconds_source": source,
            "versions": _versions(),
            "encoder_ops": policy.encoder.operations,
            "input_comparisons": network.n_inputs,
        }
        asked = {"episodes": episodes, "dense": dense}
        recorder: EventRecorder | RunRecorder | None = EventRecorder() if record_events else None
        if out is not None and record_events:
            recorder = RunRecorder(out, {**settings, "asked": asked, "devices": names})
        film = None if video is None else _film(video, seconds, worlds)
        log = Recording(
            policy.with_network(network),
            carry_state,
            hooks if film is None else (*hooks, film),
            recorder,
            engine,
            seconds,
        )
        with EpisodeBar(episodes * (3 if dense else 1), progress) as bar:
            try:
                played = play(log, worlds, episodes, seed, carry_state, bar, film)
            except BaseException:
                if film is not None:
                    film.discard()
                # What was recorded until then stays, as after a kill.
                if isinstance(recorder, RunRecorder):
                    recorder.flush()
                raise
        if film is not None:
            film.close()
    result = _summarise(log, played, profiles, settings)
    if out is not None:
        result.save(out)
    return result


def _summarise(
    log: Recording,
    played: Played,
    profiles: Sequence[energy.Profile],
    settings: dict[str, Any],
) -> Run:
    """Turn what was recorded into figures."""
    network, counters = log.network, log.counters()
    counts = (counters.evaluations, counters.events, counters.macs, counters.acs)
    is_input = np.array([p.is_input for p in network.populations])
    sizes = np.array([p.size for p in network.populations])
    joules = {profile.name: profile.joules(*counts, sizes, is_input) for profile in profiles}
    # In the order of docs/run-json.md.
    tail = ("versions", "encoder_ops", "input_comparisons")
    data = {
        "schema": SCHEMA,
        **{key: value for key, value in settings.items() if key not in tail},
        "episodes": len(played.event),
        "steps": log.n_steps,
        "interrupted": played.interrupted,
        **{key: settings[key] for key in tail},
        "return": summary.returns(played.event),
        "dense_return": None if played.dense is None else summary.returns(played.dense),
        "random_return": None if played.random is None else summary.returns(played.random),
        "relative_loss": summary.relative_loss(
            played.event, played.dense or [], played.random or []
        ),
        **figures(
            network,
            *counts,
            first_steps=log.first_steps(),
            synops_at_zero=log.synops_at_zero(int(counters.synops.sum())),
            profiles=profiles,
            step_seconds=settings["step_seconds"],
        ),
    }
    return Run(data, network, counters, joules, log.events(counters))


def _film(path: str | os.PathLike[str], seconds: float | None, worlds: Worlds) -> Film:
    """Return the film, once the environment is known to give pictures."""
    from eventsim.analysis.video import Film

    if worlds.event.render_mode != "rgb_array":
        raise InputError(
            f"has render_mode {worlds.event.render_mode!r}, which gives no pictures; make it with "
            "render_mode='rgb_array'",
            where=f"environment '{worlds.name}'",
        )
    return Film(path, seconds=seconds)


def _with_thresholds(
    network: Network, threshold: float | None, threshold_scale: float | None
) -> Network:
    if threshold is not None and threshold_scale is not None:
        raise InputError("give threshold or threshold_scale, not both")
    if threshold is not None:
        if not (np.isfinite(threshold) and threshold >= 0.0):
            raise InputError(f"is {threshold}; give a finite number >= 0", field="threshold")
        return network.with_thresholds(threshold)
    return network if threshold_scale is None else network.scale_thresholds(threshold_scale)


def _name(policy: Policy) -> str:
    return str(policy.metadata.get("name") or policy.network.name or "policy")


def _check_episodes(episodes: int) -> None:
    if episodes < 1:
        raise InputError(f"is {episodes}; give at least 1", field="episodes")


def _versions() -> dict[str, str]:
    import gymnasium
    import numba

    return {
        "eventsim": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "gymnasium": gymnasium.__version__,
    }
