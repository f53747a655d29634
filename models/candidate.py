"""What a search for cheap policies proposes, and how hard it tries."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eventsim.connectivity import Connectivity
from eventsim.convolution import Local
from eventsim.errors import InputError
from eventsim.models.distill import Training
from eventsim.models.policy import Policy
from eventsim.output import write_text

Float: TypeAlias = NDArray[np.float64]
Kind: TypeAlias = Literal["dense", "pruned", "events"]

#: Pixels up to which students that take them as they are are tried with a hidden layer.
FEW_PIXELS = 4096
#: First environment seeds of what is done; each has room for 100,000.
SEEDS = {
    "record": 1_000_000,
    "validation": 2_000_000,
    "selection": 3_000_000,
    "test": 4_000_000,
    "reinforce": 5_000_000,
    "accompany": 6_000_000,
}

#: Hidden layers of the dense students that are tried, cheapest first.
SHAPES: tuple[tuple[int, ...], ...] = (
    (),
    (4,),
    (8,),
    (16,),
    (32,),
    (16, 16),
    (64,),
    (32, 32),
    (64, 64),
    (128, 128),
    (256, 256),
)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A policy that the search proposes.

    Attributes
    ----------
    name : str
    kind : {"dense", "pruned", "events"}
    policy : Policy
    macs : float
        Multiplications a step on the validation episodes, cold starts counted; of a dense
        candidate those of its layers.
    acs : float
    returns : float64 array
        On the validation seeds, from the first one on.
    shape : tuple of int
        Sizes of the layers, inputs and outputs included.
    start : str
        Name of the student that it came from.
    dense_macs : int
        Multiplications a step of its layers without pruning and events.
    """

    name: str
    kind: Kind
    policy: Policy
    macs: float
    acs: float
    returns: Float
    shape: tuple[int, ...]
    start: str
    dense_macs: int


@dataclass(frozen=True)
class Settings:
    """How hard the search tries; the defaults serve every task.

    Parameters
    ----------
    recorded_steps : int
        Of the teacher, at least one episode.
    visits, visited_steps : int
        Times that a dense student plays for itself and learns on, and the steps that it plays.
    kept_steps : int
        Steps that a training looks at, the latest.
    dense_iterations, event_iterations : int
        Of one training.
    starts : int
        Random starts of a dense student.
    screened : int
        Validation episodes of a candidate; up to four times as many unless it is clear that it
        loses.
    wider : tuple of int
        Event-driven ladders begin so many shapes above the smallest dense one.
    rounds : int
        Of a ladder at most.
    cut_share : float
        Of the surviving synapses, cut a round.
    cost, cost_growth : float
        Weight of the cost in the loss in the first round, and its growth a round.
    first_threshold : float
        In spreads of each neuron, before thresholds are learned.
    slack : float
        A student holds if its mean loss on the validation seeds is at most so much.
    patience : int
        Rounds in a row that a ladder may fail before it ends.
    refine_checks : int
        Times that a refinement may look in the environment; 0 for none.
    refine_slack : float
        Part of `slack` that a refinement may use: it is the best of many tries on few seeds.
    refine_kept : int
        Candidates that a refinement proposes at most, its last among them.
    hopeless : float
        A dense student that loses more gets no other start.
    windows, window_steps : int
        Windows of a batch in training, and steps of a window.
    dense_batch : int, optional
        Steps of a batch in dense training; 16 times the windows by default.
    refine_synapses : int
        Networks with more synapses, unrolled, are not refined.
    narrowest : int
        Dense students before this number are not tried, as where another search has shown them to
        be too narrow; with as many as there are or more, none is.
    own_after : int
        The ladder that begins with the teacher comes before the dense student of this number,
        if none before it holds; after all of them by default. Where each takes long, it would come
        too late.
    own_cut_share, own_iterations, own_learning_rate, own_cost, own_cost_growth
        The same of the ladder that begins with the teacher itself, where no student holds: larger
        networks, which are cut faster and trained longer, by smaller steps and with less weight on
        their cost, as they know much that would be lost.
    own_polish : int
        Iterations for which the cheapest of that ladder that held learns on, four times, its
        thresholds as they are; 0 for none.
    own_accompanied : int
        Environment steps in which it learns on, twice, instead: it plays, and the teacher tells at
        each step what to do; fewer where the time that is left does not hold them. So does the
        cheapest round of a student's ladder that holds or nearly does, before the next ladder. 0
        for none, and none where actions are no single discrete choice.
    accompanied_cost, accompanied_raise : float
        Weight of the cost in the loss meanwhile, which for students is `cost`, and what thresholds
        are multiplied by beforehand of what holds: what they do hardly shows in recorded windows,
        whose ladder leaves them small.
    accompanied_rate : float
        Learning rate of students meanwhile; that of the teacher's ladder is `own_learning_rate`.
    reinforced_steps, reinforced_rounds : int
        Environment steps of a round in which the cheapest of a ladder learns from rewards, 0 for
        none, and such rounds at most; from the second on it is cut first, while it holds. Of
        frames of a screen fewer steps where the time that is left does not hold them.
    reinforced_last_layer : bool
        Whether only the last layer learns in these steps, which is less at the mercy of noise where
        rewards are rare; then nothing is cut.
    own_steps : int
        Steps that the teacher plays for that ladder; each round plays a quarter as many, and three
        times as many are looked at.

    Raises
    ------
    InputError
        If a value is no number, below 0 (the slack may be), or no whole one where one is due.
    """

    recorded_steps: int = 15_000
    visits: int = 3
    visited_steps: int = 5_000
    kept_steps: int = 60_000
    dense_iterations: int = 2_000
    event_iterations: int = 400
    starts: int = 3
    screened: int = 20
    wider: tuple[int, ...] = (0, 1, 2)
    rounds: int = 24
    cut_share: float = 0.15
    cost: float = 0.003
    cost_growth: float = 1.25
    first_threshold: float = 0.1
    slack: float = 0.01
    patience: int = 3
    refine_checks: int = 120
    refine_slack: float = 0.5
    refine_kept: int = 6
    hopeless: float = math.inf
    windows: int = 64
    window_steps: int = 32
    dense_batch: int | None = None
    refine_synapses: int = 4_000
    narrowest: int = 0
    own_after: int = 1_000
    own_cut_share: float = 0.15
    own_iterations: int = 1_500
    own_learning_rate: float = 1e-3
    own_cost: float = 5e-4
    own_cost_growth: float = 1.35
    own_steps: int = 40_000
    own_polish: int = 0
    own_accompanied: int = 0
    accompanied_cost: float = 0.01
    accompanied_raise: float = 1.75
    accompanied_rate: float = 1e-3
    reinforced_steps: int = 0
    reinforced_rounds: int = 6
    reinforced_last_layer: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            given, kind = getattr(self, field.name), str(field.type)
            if given is None and kind.endswith("None"):
                continue
            several = kind.startswith("tuple")
            if several and not isinstance(given, tuple | list):
                raise InputError(f"is {given!r}; give several numbers", field=field.name)
            for value in given if several else (given,):
                _check(field.name, kind, value)

    def from_teacher(self) -> Settings:
        """Settings of the ladder that begins with the teacher."""
        return replace(
            self,
            cut_share=self.own_cut_share,
            event_iterations=self.own_iterations,
            cost=self.own_cost,
            cost_growth=self.own_cost_growth,
            visited_steps=self.own_steps // 2,
            kept_steps=3 * self.own_steps,
        )

    def training(self, iterations: int, own: bool, **fields: Any) -> Training:
        """Return a training by events, in the ladder that begins with the teacher or in another."""
        rate = self.own_learning_rate if own else Training.learning_rate
        return Training(iterations, self.windows, self.window_steps, rate, **fields)


def _check(name: str, kind: str, value: Any) -> None:
    """See that a setting is a number of its kind."""
    wanted = None
    if not isinstance(value, int | float) or (math.isnan(value) and name == "slack"):
        wanted = "a number"
    elif not value >= 0 and name != "slack":  # it may have to do better than its teacher
        wanted = "0 or more"
    elif kind == "bool" and value not in (0, 1):
        wanted = "True or False"
    elif kind != "float" and value % 1 != 0:
        wanted = "a whole number"
    if wanted is not None:
        raise InputError(f"is {value!r}; give {wanted}", field=name)


def settings_for(teacher: Policy, **fields: Any) -> Settings:
    """Return how hard to search: fields given, others as suits the teacher.

    Raises
    ------
    TypeError
        If there is no such field.
    """
    if not any(isinstance(q.weights, Local) for q in teacher.network.projections):
        return Settings(**fields)
    large = teacher.network.n_inputs > FEW_PIXELS
    return Settings(**{**PICTURES, **(FRAMES if large else {}), **fields})


#: What differs from the defaults of `Settings` where students see pictures, whose steps take
#: longer, and whose many weights are cut faster. Returns of small games vary much, and their
#: episodes take little: of 20 of them a student that lost a fifth could pass for one that held.
PICTURES: dict[str, Any] = {
    "screened": 100,
    "visits": 10,
    "kept_steps": 100_000,
    "dense_iterations": 4_000,
    "starts": 2,
    "hopeless": 0.3,
    "windows": 32,
    "window_steps": 24,
    "cut_share": 0.25,
    "rounds": 20,
    "refine_synapses": 1_500,
    "own_cut_share": 0.3,
    "own_iterations": 400,
    "own_learning_rate": 5e-4,
    "own_steps": 20_000,
    "reinforced_steps": 1_500_000,
}

#: What differs further where the pictures are frames of a screen: steps take long there, and an
#: episode has thousands of them.
FRAMES: dict[str, Any] = {
    "recorded_steps": 30_000,
    "kept_steps": 60_000,
    "visited_steps": 6_000,
    "visits": 4,
    "screened": 12,
    "starts": 1,
    "dense_iterations": 12_800,
    "dense_batch": 64,
    "event_iterations": 200,
    "windows": 24,
    "window_steps": 12,
    "cut_share": 0.35,
    "rounds": 16,
    "own_after": 3,
    "own_cut_share": 0.3,
    "own_iterations": 90,
    "own_steps": 8_000,
    "own_polish": 400,
    "own_accompanied": 250_000,
    "reinforced_steps": 0,
    "wider": (0, 1),
}


#: Fields that a search begun by an earlier version does not name, with what it did.
LATER_SETTINGS = {
    "hopeless": math.inf,
    "windows": 64,
    "window_steps": 32,
    "dense_batch": None,
    "refine_synapses": 4_000,
    "narrowest": 0,
    "own_after": 1_000,
    "own_cut_share": 0.15,
    "own_iterations": 1_500,
    "own_learning_rate": 1e-3,
    "own_cost": 5e-4,
    "own_cost_growth": 1.35,
    "own_steps": 40_000,
    "own_polish": 0,
    "own_accompanied": 0,
    "accompanied_cost": 0.01,
    "accompanied_raise": 1.75,
    "accompanied_rate": 1e-3,
    "reinforced_steps": 0,
    "reinforced_rounds": 6,
    "reinforced_last_layer": False,
}


def identity_of(
    teacher: Policy, env_id: str, env_kwargs: Mapping[str, Any], seed: int, settings: Settings
) -> dict[str, Any]:
    """What two searches must have in common for one to go on from the other's checkpoints."""
    given = json.loads(json.dumps(settings.__dict__))
    return {
        "schema": "eventsim-search/1",
        "env_id": env_id,
        "env_kwargs": dict(env_kwargs),
        "seed": seed,
        "teacher": teacher.network.n_synapses,
        "teacher_sum": sum(_sum_of(q.weights) for q in teacher.network.projections),
        "settings": {key: v for key, v in given.items() if LATER_SETTINGS.get(key) != v},
    }


def check_identity(workdir: Path, mine: Mapping[str, Any]) -> None:
    """See that a folder holds no other search than this one, and say whose it is.

    Raises
    ------
    InputError
        If it does.
    """
    path = workdir / "search.json"
    if not path.exists():
        write_text(path, json.dumps(mine, indent=1) + "\n")
    elif json.loads(path.read_text(encoding="utf-8")) != json.loads(json.dumps(mine)):
        raise InputError(
            "holds the search of another teacher, environment, seed or settings; give another "
            "folder, or remove it",
            where=f"'{workdir}'",
        )


def _sum_of(weights: Connectivity) -> float:
    """Sum of magnitudes, of a convolution of each shared weight once."""
    if isinstance(weights, Local):
        return float(np.abs(weights.kernel_rows()[2]).sum(dtype=np.float64))
    return float(np.abs(weights.to_dense()).sum(dtype=np.float64))


def key_of(seed: int, *parts: object) -> int:
    """Return a seed that depends on the search's own and on what it is for."""
    text = "/".join(map(str, parts)).encode()
    state = np.random.SeedSequence([seed, *text]).generate_state(1)
    return int(state[0]) >> 1


def dense_macs_of(shape: Sequence[int]) -> int:
    """Return the multiplications of a fully connected network of these layers."""
    return sum(a * b for a, b in itertools.pairwise(shape))


def found_of(
    name: str, kind: Kind, macs: float, acs: float, returns: Float, start: str
) -> dict[str, Any]:
    """What a search keeps of a candidate beside its student."""
    return {
        "name": name,
        "kind": kind,
        "macs": float(macs),
        "acs": float(acs),
        "returns": returns.tolist(),
        "start": start,
    }


def refined_from(base: Candidate, name: str, policy: Policy, kept: Mapping[str, Any]) -> Candidate:
    """A candidate that a refinement of another has come to, of what was kept of it."""
    shape = tuple(p.size for p in policy.network.populations)
    return Candidate(
        name,
        "events",
        policy,
        kept["macs"],
        kept["acs"],
        np.array(kept["returns"]),
        shape,
        base.start,
        # Unrolled, a convolution has more weights than it multiplies with.
        min(dense_macs_of(shape), base.dense_macs),
    )
