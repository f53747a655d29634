"""A progress bar on stderr, drawn only where somebody can see it."""

from __future__ import annotations

import time
from types import TracebackType

#: Seconds between two looks of the bar at the step count.
_REFRESH = 0.1


class EpisodeBar:
    """Shows which episode is running and how far it is.

    Parameters
    ----------
    episodes : int
        Episodes to come, of all kinds together.
    show : bool, optional
        Default: if stderr is a terminal or this is a notebook.
    """

    def __init__(self, episodes: int, show: bool | None = None) -> None:
        from rich.console import Console

        console = Console(stderr=True)
        self._bar = None
        self._text = ""
        self._steps = 0
        self._next = 0.0
        if show if show is not None else console.is_terminal or console.is_jupyter:
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
            )

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task("starting", total=episodes)

    def __enter__(self) -> EpisodeBar:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, text: str) -> None:
        """Announce an episode."""
        self._text, self._steps = text, 0
        if self._bar is not None:
            self._bar.update(self._task, description=text)

    def step(self) -> None:
        """Count a step."""
        self._steps += 1
        if self._bar is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + _REFRESH
            self._bar.update(self._task, description=f"{self._text}, step {self._steps}")

    def end(self) -> None:
        """Count an episode."""
        if self._bar is not None:
            self._bar.advance(self._task)


class RunBar:
    """Shows how far a simulation in continuous time is, and when it will be done.

    Parameters
    ----------
    show : bool or None
        None: if stderr is a terminal or this is a notebook.
    total : float
        Spikes, or seconds, of the run.
    spikes : bool
        Which of the two.

    Attributes
    ----------
    shown : bool
    """

    def __init__(self, show: bool | None, total: float, spikes: bool) -> None:
        self.shown = bool(show)
        self._bar = None
        self._next = 0.0
        if show is False:
            return
        from rich.console import Console

        console = Console(stderr=True)
        self.shown = show if show is not None else console.is_terminal or console.is_jupyter
        if self.shown:
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            amount = "{task.completed:.0f} of {task.total:.0f} spikes"
            seconds = "{task.completed:.4g} of {task.total:.4g} simulated s"
            self._bar = Progress(
                BarColumn(bar_width=20),
                TextColumn(amount if spikes else seconds),
                TextColumn("done in"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task("running", total=total)

    def __enter__(self) -> RunBar:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: float) -> None:
        """Say how far the run is, in the unit of its total."""
        if self._bar is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + _REFRESH
            self._bar.update(self._task, completed=done)
