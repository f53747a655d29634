"""Upper bounds on a mean loss that hold for any distribution of losses, by betting against it.

A test by betting (Waudby-Smith and Ramdas 2023, "Estimating means of bounded random variables by
betting"): start with a capital of 1 and stake, on every episode, a share of it on "the loss is
below m". Where the mean loss is m or more no way of staking gains in expectation, so the capital
ever reaches ``1 / alpha`` with probability at most alpha (Ville 1939), after any number of
episodes and whatever the distribution. What has to be known is the worst that an episode can lose.

The loss is a ratio of means, ``E[teacher - policy] / E[teacher - random]``. It is m or more where
``Z = (teacher - policy) - m (teacher - random)`` has a mean of 0 or more, so the stake goes on Z,
and the uncertainty of the denominator is in the bound too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim.errors import InputError

Float = NDArray[np.float64]

#: Stakes that share the capital, as parts of the largest that an episode cannot ruin.
FRACTIONS: Float = np.array([0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.7, 0.95])
#: Part of the capital that follows a plan; the rest is spread over `FRACTIONS`.
_PLANNED = 0.8
#: Part of an episode lost in full that a plan adds to what was seen, so that it never stakes all.
_UNSEEN = 0.2
#: The same as part of how far the mean is below the limit, at most: of few episodes it would leave
#: no stake that grows.
_DOUBTED = 0.75


@dataclass(frozen=True, eq=False)
class Pairs:
    """Returns of a policy, its teacher and random actions on the same seeds.

    Parameters
    ----------
    policy, teacher, random : float64 array of shape (n,)
        Entry i of all three is from an episode that began with the same seed.

    Raises
    ------
    InputError
        If they differ in length, there is none, or one is not finite.
    """

    policy: Float
    teacher: Float
    random: Float

    def __init__(self, policy: ArrayLike, teacher: ArrayLike, random: ArrayLike) -> None:
        for name, values in (("policy", policy), ("teacher", teacher), ("random", random)):
            array = np.array(values, np.float64)
            if array.ndim != 1 or array.size == 0:
                raise InputError(f"has shape {array.shape}; give one return an episode", field=name)
            if not np.isfinite(array).all():
                raise InputError("holds NaN or infinity; returns must be finite", field=name)
            object.__setattr__(self, name, array)
        if not self.policy.size == self.teacher.size == self.random.size:
            raise InputError("the returns of policy, teacher and random actions differ in number")

    def __len__(self) -> int:
        return int(self.policy.size)

    def __add__(self, more: Pairs) -> Pairs:
        return Pairs(
            np.append(self.policy, more.policy),
            np.append(self.teacher, more.teacher),
            np.append(self.random, more.random),
        )

    @property
    def lost(self) -> Float:
        """Teacher minus policy, in units of return, shape (n,)."""
        return self.teacher - self.policy

    @property
    def gained(self) -> Float:
        """Teacher minus random, in units of return, shape (n,)."""
        return self.teacher - self.random

    @property
    def advantage(self) -> float:
        """What the teacher's mean return is above that of random actions."""
        return math.fsum(self.gained.tolist()) / len(self)

    @property
    def mean_loss(self) -> float:
        """Mean relative loss: sum over sum; NaN where the teacher is no better than random."""
        gained = math.fsum(self.gained.tolist())
        return math.fsum(self.lost.tolist()) / gained if gained > 0.0 else math.nan

    @property
    def worst_loss(self) -> float:
        """Largest relative loss of an episode."""
        return float(self.lost.max()) / self.advantage


@dataclass(frozen=True)
class Scale:
    """What one episode can lose at most, known before the losses that are bounded.

    Parameters
    ----------
    floor : float
        Return below which no episode falls.
    ceiling : float
        Return that the teacher does not exceed.
    advantage : float
        Estimate of the teacher's mean return above random; it only scales.

    Raises
    ------
    InputError
        If the ceiling is not above the floor or the advantage is not positive.
    """

    floor: float
    ceiling: float
    advantage: float

    def __post_init__(self) -> None:
        if not (self.floor < self.ceiling and math.isfinite(self.ceiling - self.floor)):
            raise InputError(
                f"is {self.floor}, not below the ceiling {self.ceiling}", field="floor"
            )
        if not (self.advantage > 0.0 and math.isfinite(self.advantage)):
            raise InputError(f"is {self.advantage}; it must be positive", field="advantage")

    @property
    def worst(self) -> float:
        """Largest relative loss that an episode can have."""
        return (self.ceiling - self.floor) / self.advantage

    def holding(self, pairs: Pairs) -> Scale:
        """Return the scale widened to the episodes that were seen after all."""
        seen = [self.floor, *(float(r.min()) for r in (pairs.policy, pairs.teacher, pairs.random))]
        # Random actions may beat a teacher on a seed; the bound needs that range too.
        top = max(self.ceiling, float(pairs.teacher.max()), float(pairs.random.max()))
        return Scale(min(seen), top, self.advantage)


@dataclass(frozen=True)
class Plan:
    """How a bound will be computed, fixed before its episodes are played.

    Attributes
    ----------
    episodes : int
        That it will need to show that the loss is at most `limit`.
    fraction : float
        Stake, as part of the largest that an episode cannot ruin.
    limit : float
    """

    episodes: int
    fraction: float
    limit: float


def excess(pairs: Pairs, limit: float, scale: Scale) -> Float:
    """``Z``, over the largest value that it can have: shape (n,), at most 1.

    Its mean is negative where the loss is below `limit`.
    """
    largest = scale.worst * (1.0 + abs(limit))
    return (pairs.lost - limit * pairs.gained) / (scale.advantage * largest)


def log_capital(z: Float, fractions: Float, weights: Float) -> float:
    """Logarithm of the capital after all episodes, its `weights` staked by `fractions` on -z."""
    logs = np.log1p(-fractions[:, np.newaxis] * z).sum(axis=1) + np.log(weights)
    top = float(logs.max())
    return top + math.log(float(np.exp(logs - top).sum()))


def stakes(fraction: float | None = None) -> tuple[Float, Float]:
    """Return stakes and the parts of the capital that follow each; most follows `fraction`."""
    spread = np.full(FRACTIONS.size, 1.0 / FRACTIONS.size)
    if fraction is None:
        return FRACTIONS, spread
    if not 0.0 < fraction < 1.0:
        raise InputError(f"is {fraction}; give a number between 0 and 1", field="fraction")
    return np.append(FRACTIONS, fraction), np.append(spread * (1.0 - _PLANNED), _PLANNED)


def is_below(
    pairs: Pairs, scale: Scale, limit: float, *, level: float, fraction: float | None = None
) -> bool:
    """Whether the episodes show, at confidence `level`, that the mean loss is not `limit`.

    May be asked after every batch; the probability that it is ever True of a mean loss of `limit`
    or more is at most ``1 - level``. The parameters are those of `upper_bound`.
    """
    z = excess(pairs, limit, scale.holding(pairs))
    return log_capital(z, *stakes(fraction)) >= -math.log(_alpha(level))


def upper_bound(
    pairs: Pairs, scale: Scale, *, level: float = 0.95, fraction: float | None = None
) -> float:
    """One-sided upper confidence bound on the mean relative loss.

    It holds for independent episodes of any distribution in which no episode loses more than
    `scale` says: with probability at least `level` the mean loss is at or below it. Where an
    episode did lose more, the scale is widened to it first.

    Parameters
    ----------
    pairs : Pairs
    scale : Scale
        Fixed without a look at `pairs`.
    level : float, optional
        In (0, 1).
    fraction : float, optional
        Stake, fixed without a look at `pairs`, such as `plan` gives it; without one the capital
        is spread over several, and the bound is wider.

    Returns
    -------
    float
        In units of the teacher's advantage over random; `Scale.worst` if the episodes say nothing.

    Raises
    ------
    InputError
        If `level` or `fraction` is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from eventsim.models.bounds import Pairs, Scale, upper_bound
    >>> same = np.full(400, 500.0)
    >>> pairs = Pairs(same, same, np.full(400, 20.0))
    >>> round(upper_bound(pairs, Scale(10.0, 500.0, 480.0), fraction=0.9), 4)
    0.0091
    """

    def refused(m: float) -> bool:
        return is_below(pairs, scale, m, level=level, fraction=fraction)

    scale = scale.holding(pairs)
    # From above: every m of the grid down to the bound must be refused.
    low = pairs.mean_loss
    if not low < scale.worst:
        return scale.worst
    last = scale.worst
    for m in low + (scale.worst - low) * np.geomspace(1.0, 1e-4, 24):
        if not refused(float(m)):
            low = float(m)
            break
        last = float(m)
    for _ in range(20):
        middle = 0.5 * (low + last)
        if refused(middle):
            last = middle
        else:
            low = middle
    return last


def plan(
    seen: Pairs, scale: Scale, limit: float, *, level: float = 0.95, power: float = 0.9
) -> Plan | None:
    """Plan a bound from episodes that it will not use.

    Takes the stake under which the capital grows fastest at `limit`, and the episodes after which
    it gets to ``1 / (1 - level)`` with probability `power`.

    Parameters
    ----------
    seen : Pairs
        Earlier episodes of the same policy.
    scale : Scale
    limit : float
        Loss that the bound shall stay within.
    level, power : float, optional

    Returns
    -------
    Plan or None
        None if no number of episodes like these would do.

    Raises
    ------
    InputError
        If `level` or `power` is out of range.
    """
    z = excess(seen, limit, scale.holding(seen))
    factors = np.log1p(-_grid()[:, np.newaxis] * z)
    growth, sd = factors.mean(axis=1), factors.std(axis=1)
    unseen = min(_UNSEEN / z.size, _DOUBTED * max(-float(z.mean()), 0.0))
    careful = growth + unseen * np.log1p(-_grid())
    best = int(_episodes(careful, sd, level, power).argmin())
    episodes = float(_episodes(growth, sd, level, power)[best])
    return Plan(int(episodes), float(_grid()[best]), limit) if math.isfinite(episodes) else None


def episodes_needed(
    limit: float,
    scale: Scale,
    *,
    mean: float = 0.0,
    sd: float = 0.0,
    level: float = 0.95,
    power: float = 0.9,
) -> int | None:
    """Episodes that a bound needs to show that a loss is at most `limit`.

    Parameters
    ----------
    limit : float
    scale : Scale
    mean, sd : float, optional
        Of the paired relative losses; by default nothing is lost at all, which is the least that
        is ever needed.
    level, power : float, optional
        Confidence of the bound, and the probability with which it gets there.

    Returns
    -------
    int or None
        None where the mean is not below the limit.

    Raises
    ------
    InputError
        If `level` or `power` is out of range.

    Examples
    --------
    >>> from eventsim.models.bounds import Scale, episodes_needed
    >>> episodes_needed(0.01, Scale(10.0, 500.0, 480.0))
    351
    >>> episodes_needed(0.01, Scale(10.0, 500.0, 480.0), sd=0.1)
    1468
    """
    largest = scale.worst * (1.0 + abs(limit))
    stake = _grid() / largest
    growth = np.log1p(np.maximum(stake * (limit - mean), -0.5)) - 0.5 * (stake * sd) ** 2
    episodes = float(_episodes(growth, stake * sd, level, power).min())
    return int(episodes) if math.isfinite(episodes) else None


def _grid() -> Float:
    return np.geomspace(0.005, 0.95, 80)


def _episodes(growth: Float, sd: Float, level: float, power: float) -> Float:
    """Episodes until the capital is won under each stake, by the normal law; inf for never."""
    if not 0.0 < power < 1.0:
        raise InputError(f"is {power}; give a number between 0 and 1", field="power")
    from scipy.special import ndtri

    target = -math.log(_alpha(level) * _PLANNED)
    grows = growth > 0.0
    q = max(float(ndtri(power)), 0.0) * sd
    safe = np.where(grows, growth, 1.0)
    root = (q + np.sqrt(q * q + 4.0 * safe * target)) / (2.0 * safe)
    return np.where(grows, np.ceil(root**2), np.inf)


def _alpha(level: float) -> float:
    if not 0.0 < level < 1.0:
        raise InputError(f"is {level}; give a number between 0 and 1", field="level")
    return 1.0 - level
