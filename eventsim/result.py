"""What a run leaves behind: its figures, its arrays, and the files they are written to."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eventsim import tables
from eventsim.errors import InputError, UnknownNameError
from eventsim.kernels.status import ACS, EVALUATIONS, EVENTS, MACS
from eventsim.output import Coded, prepare_folder, write_atomically, write_parquet, write_text
from eventsim.recording import EVENT_COLUMNS
from eventsim.records import Records
from eventsim.run_recording import action_names, clear_parts, gather, save_network

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from eventsim.network import Network

Int = NDArray[np.int64]
Float = NDArray[np.float64]

SCHEMA = "eventsim-run/1"

#: What `Run.save` writes; events and raster only if events were recorded.
FILES = ("run.json", "network.safetensors", "counters.parquet", "events.parquet", "raster.png")


@dataclass(frozen=True, eq=False)
class StepCounters:
    """Counters of every step of every episode.

    Parameters
    ----------
    populations : tuple of str
        P names, in network order.
    episode, step : int64 array of shape (steps,)
        Episode, and step inside it, both from 0.
    reward : float64 array of shape (steps,)
    table : int64 array of shape (steps, P, 5)
        Columns as in `eventsim.kernels.status`.
    action : float64 array of shape (steps, n), or None
        As the environment got it; n is 0 for an action of more than 32 numbers or with a structure.
    """

    populations: tuple[str, ...]
    episode: Int
    step: Int
    reward: Float
    table: Int
    action: Float | None = None

    @property
    def evaluations(self) -> Int:
        """Neurons evaluated, shape (steps, P)."""
        return self.table[:, :, EVALUATIONS]

    @property
    def events(self) -> Int:
        """Events emitted, shape (steps, P)."""
        return self.table[:, :, EVENTS]

    @property
    def macs(self) -> Int:
        """MACs of incoming synapses, shape (steps, P)."""
        return self.table[:, :, MACS]

    @property
    def acs(self) -> Int:
        """ACs of incoming synapses, shape (steps, P)."""
        return self.table[:, :, ACS]

    @property
    def synops(self) -> Int:
        """MACs and ACs of each step, shape (steps,)."""
        return np.asarray((self.macs + self.acs).sum(axis=1), np.int64)


@dataclass(frozen=True, eq=False)
class Run:
    """A finished, or interrupted, run of a policy in its environment.

    Attributes
    ----------
    data : dict
        The figures, as `to_dict` returns them.
    network : Network
        As it ran, with its thresholds.
    counters : StepCounters
    joules : dict of str to float64 array of shape (steps, P)
        Dynamic joules of each device; NaN where the work has no price.
    recorded : dict of str to array, Records, or None
        The events: in memory, or in the folder that the run was written to.
    """

    data: dict[str, Any] = field(repr=False)
    network: Network = field(repr=False)
    counters: StepCounters = field(repr=False)
    joules: Mapping[str, Float] = field(repr=False)
    recorded: dict[str, NDArray[Any]] | Records | None = field(repr=False)

    @property
    def events(self) -> dict[str, NDArray[Any]] | None:
        """All events; None if they were not recorded.

        ``episode``, ``step``, ``time`` (seconds since the reset), ``population`` (index into
        ``network.populations``), ``neuron`` and ``value``. Those of a run with a folder are read
        from it each time; ``recorded.select`` and ``recorded.chunks`` read fewer.
        """
        if isinstance(self.recorded, Records):
            return self.recorded.to_numpy(EVENT_COLUMNS)
        return self.recorded

    def __repr__(self) -> str:
        reduction = tables.factor(self.total["reduction"])
        return f"<Run: {tables.heading(self.data)}, reduction {reduction}>"

    @property
    def layers(self) -> list[dict[str, Any]]:
        """Figures of every population, means per step."""
        return list(self.data["layers"])

    @property
    def total(self) -> dict[str, Any]:
        """Figures of the whole network."""
        return dict(self.data["total"])

    @property
    def energy(self) -> list[dict[str, Any]]:
        """Joules per step on every device."""
        return list(self.data["energy"])

    @property
    def returns(self) -> Float:
        """Returns of the finished episodes."""
        return np.array(self.data["return"]["per_episode"], np.float64)

    @property
    def dense_returns(self) -> Float | None:
        """Returns of the dense policy on the same seeds; None if it did not run."""
        dense = self.data["dense_return"]
        return None if dense is None else np.array(dense["per_episode"], np.float64)

    @property
    def interrupted(self) -> bool:
        """Whether the run was cut short by Ctrl-C."""
        return bool(self.data["interrupted"])

    def to_dict(self) -> dict[str, Any]:
        """Return run.json as plain data (schema ``eventsim-run/1``)."""
        copy: dict[str, Any] = json.loads(self.to_json())
        return copy

    def to_json(self) -> str:
        """Return the text of run.json."""
        return json.dumps(self.data, indent=2, allow_nan=False, ensure_ascii=True) + "\n"

    def to_dataframe(self, table: str = "layers") -> pd.DataFrame:
        """Return one of the tables as a DataFrame.

        Parameters
        ----------
        table : str
            ``"layers"``, ``"energy"``, ``"episodes"``, ``"counters"`` (a row per step and
            population) or ``"events"``.

        Raises
        ------
        UnknownNameError
            If there is no such table.
        InputError
            If the events were not recorded.
        """
        import pandas as pd

        if table in ("layers", "energy"):
            return pd.DataFrame(self.data[table])
        if table == "episodes":
            named = {"return": self.data["return"]}
            named |= {name: self.data[name] for name in ("dense_return", "random_return")}
            columns = {
                name: pd.Series(values["per_episode"], dtype=np.float64)
                for name, values in named.items()
                if values is not None
            }
            return pd.DataFrame(columns).rename_axis("episode")
        if table == "counters":
            return _dataframe(self._counter_columns())
        if table == "events":
            return _dataframe(self._event_columns())
        raise UnknownNameError(
            f"there is no table {table!r}; use layers, energy, episodes, counters or events"
        )

    def raster(
        self,
        episode: int = 0,
        max_steps: int = 1000,
        *,
        tracks: Sequence[str] = ("reward",),
        ax: Axes | None = None,
        **options: Any,
    ) -> Axes:
        """Draw the events of one episode, layers stacked, with tracks above.

        Parameters
        ----------
        episode : int
        max_steps : int
            Only the episode's first steps, where it is longer; the title says so.
        tracks : sequence of str, optional
            ``"reward"`` and ``"action"``, which the run has; observations of your own are given
            as ``observations=``, see below.
        ax : matplotlib.axes.Axes, optional
            Default: axes of a new figure.
        **options
            Handed to `eventsim.analysis.raster.raster`.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        InputError
            If the events were not recorded, or there is no such episode.
        """
        from eventsim.analysis.raster import raster

        counters = self.counters
        if self.recorded is None:
            raise _not_recorded()
        mine = counters.episode == episode
        n_steps = min(int(mine.sum()), max_steps)
        if n_steps < 1:
            raise InputError(
                f"is {episode}; there are {counters.episode[-1] + 1}, from 0, and max_steps is "
                f"{max_steps}, which must be at least 1",
                field="episode",
            )
        title = f"{Path(self.data['policy']).name} in {self.data['env']}: episode {episode + 1}"
        if n_steps < mine.sum():
            title += f", the first {n_steps} of {mine.sum()} steps"
        names = ("step", "population", "neuron", "value")
        if isinstance(self.recorded, Records):
            shown = self.recorded.select(episode=episode, steps=(0, n_steps)).to_numpy(names)
        else:
            events = self.recorded
            chosen = (events["episode"] == episode) & (events["step"] < n_steps)
            shown = {name: events[name][chosen] for name in names}
        known = {"reward": counters.reward, "action": counters.action}
        above: dict[str, Any] = {}
        for track in tracks:
            if track not in known:
                raise UnknownNameError(f"there is no track {track!r}; use reward or action")
            values = known[track]
            if values is not None and values.size:
                above[f"{track}s"] = values[mine][:n_steps]
        options = {**above, "title": title, **options}
        return raster(shown, self.network, steps=n_steps, ax=ax, **options)

    def _write_raster(self, path: Path) -> None:
        from matplotlib.figure import Figure

        figure = self.raster().figure
        if isinstance(figure, Figure):
            figure.savefig(path)

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write the figures, the network and the arrays, as docs/cli.md lists them.

        events.parquet and raster.png are there if events were recorded, network.safetensors if
        all of the network has a stored form.
        Every file is written under a temporary name and then renamed, run.json last. Files that
        an earlier run left under these names are replaced.

        Returns
        -------
        list of Path
            What was written.

        Raises
        ------
        OutputError
            If the folder or a file cannot be written.
        """
        target = prepare_folder(folder)
        writers: dict[str, Callable[[Path], None]] = {
            "counters.parquet": lambda path: write_parquet(path, self._counter_columns())
        }
        if isinstance(self.recorded, Records):
            paths = self.recorded.paths
            # Those of the run's own folder are already there.
            if [path.resolve() for path in paths] != [(target / "events.parquet").resolve()]:
                names = self.counters.populations
                writers["events.parquet"] = lambda path: gather(paths, path, names)
            writers["raster.png"] = self._write_raster
        elif self.recorded is not None:
            writers["events.parquet"] = lambda path: write_parquet(path, self._event_columns())
            writers["raster.png"] = self._write_raster
        else:
            # Those of an earlier run would not belong to this one.
            for name in ("events.parquet", "raster.png"):
                (target / name).unlink(missing_ok=True)
        writers["run.json"] = lambda path: write_text(path, self.to_json())
        save_network(target, self.network)
        for name, write in writers.items():
            write_atomically(target / name, write)
        clear_parts(target)
        return [target / name for name in FILES if (target / name).is_file()]

    def _counter_columns(self) -> dict[str, NDArray[Any] | Coded]:
        """Columns of counters.parquet: a row per step and population."""
        counters = self.counters
        n_steps, n_populations = counters.events.shape
        columns: dict[str, NDArray[Any] | Coded] = {
            "episode": np.repeat(counters.episode, n_populations),
            "step": np.repeat(counters.step, n_populations),
            "population": Coded(np.tile(np.arange(n_populations), n_steps), counters.populations),
            "reward": np.repeat(counters.reward, n_populations),
        }
        for name in ("evaluations", "events", "macs", "acs"):
            columns[name] = getattr(counters, name).reshape(-1)
        if counters.action is not None:
            for name, action in zip(
                action_names(counters.action.shape[1]), counters.action.T, strict=True
            ):
                columns[name] = np.repeat(action, n_populations)
        for device, joules in self.joules.items():
            columns[f"joules_{device}"] = joules.reshape(-1)
        return columns

    def _event_columns(self) -> dict[str, NDArray[Any] | Coded]:
        """Columns of events.parquet: a row per event."""
        events = self._recorded_events()
        return {**events, "population": Coded(events["population"], self.counters.populations)}

    def _recorded_events(self) -> dict[str, NDArray[Any]]:
        events = self.events
        if events is None:
            raise _not_recorded()
        return events

    def _repr_html_(self) -> str:
        parts = [table.to_html() for table in tables.all_tables(self.data)]
        return f"<div><p><b>{html.escape(tables.heading(self.data))}</b></p>{''.join(parts)}</div>"


def _not_recorded() -> InputError:
    return InputError("the events of this run were not recorded; run with record_events=True")


def _dataframe(columns: Mapping[str, NDArray[Any] | Coded]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        {
            name: pd.Categorical.from_codes(column.codes.tolist(), pd.Index(column.names))
            if isinstance(column, Coded)
            else column
            for name, column in columns.items()
        }
    )
