"""Candidates in fixed point: rounded as they are, or fine-tuned with the rounding in the loop."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import SimulationError
from eventsim.models.arena import Arena, digest
from eventsim.models.policy import Policy
from eventsim.models.quantization import quantize
from eventsim.models.rounding import WAYS, fine_tuned
from eventsim.optimize_search import Candidate, Entry
from eventsim.output import write_atomically, write_text

#: Episodes of a candidate by which its values are scaled, and on which it is fine-tuned.
SAMPLE_EPISODES = 8
#: Episodes by which its versions are compared, the first ones to sort out the hopeless.
COMPARED_EPISODES, FIRST_EPISODES = 60, 20
#: Loss beyond which a version gets no more episodes, and below which the cheapest is taken, both
#: in units of the limit.
_HOPELESS, _SAFE = 5.0, 0.5
#: The version without fine-tuning.
_PLAIN = "rounded"


@dataclass(frozen=True, eq=False)
class Fixed:
    """A candidate in fixed point."""

    kind: str
    policy: Policy
    shape: tuple[int, ...]
    macs: float
    acs: float
    returns: NDArray[np.float64]
    dense_macs: int


class Rounding:
    """Turn candidates into fixed point, keeping of each the version that does best.

    The versions of a candidate are on disk when they are made, and their episodes in the arena's
    log, so whoever continues after an interruption finds them there.

    Parameters
    ----------
    bits : int
        Of a weight, below 32.
    arena : Arena
        `measure` must have been called.
    seeds : range
        Of the environment, for this alone.
    seed : int
        Of the training.
    limit : float
        Largest loss.
    folder : Path
        For the versions; made if absent.
    say : callable
        Told how far it is.
    late : callable
        Whether time is over: further candidates are rounded as they are, and not compared.
    """

    def __init__(
        self,
        bits: int,
        arena: Arena,
        seeds: range,
        *,
        seed: int,
        limit: float,
        folder: Path,
        say: Callable[[str], None],
        late: Callable[[], bool],
    ) -> None:
        self._bits, self._arena, self._seed, self._limit = bits, arena, seed, limit
        self._samples = seeds[:SAMPLE_EPISODES]
        self._compared = seeds[SAMPLE_EPISODES:][:COMPARED_EPISODES]
        self._folder, self._say, self._late = folder, say, late
        folder.mkdir(parents=True, exist_ok=True)

    def plain(self, policy: Policy) -> Policy:
        """Round a policy as it is."""
        return quantize(policy, self._bits, self._arena.inputs(policy, self._samples))

    def entries(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return the candidates in fixed point, in the same order.

        Of each the cheapest version that lost next to nothing, or the one that lost least.
        """
        self._say(f"rounding {len(entries)} candidates to {self._bits} bits")
        return [self._entry(one) for one in entries]

    def _entry(self, entry: Entry) -> Entry:
        candidate = entry.candidate
        if self._late():
            policy = self.plain(candidate.policy)
            return Entry(_fixed(candidate, policy, candidate.macs, candidate.acs), entry.loss)
        found = {}
        for name, policy in self._versions(candidate.policy).items():
            seeds = self._compared[:FIRST_EPISODES]
            loss = self._arena.pairs(policy, seeds).mean_loss
            if loss <= _HOPELESS * self._limit:
                seeds = self._compared
                loss = self._arena.pairs(policy, seeds).mean_loss
            work = self._arena.work(policy, seeds)
            found[name] = Entry(_fixed(candidate, policy, work.macs, work.acs), loss)
        safe = {k: one for k, one in found.items() if one.loss <= _SAFE * self._limit}
        if safe:
            name = min(safe, key=lambda k: safe[k].synops)
        else:
            name = min(found, key=lambda k: found[k].loss)
        rounded, best = found[_PLAIN], found[name]
        self._say(
            f"  {entry.synops:.3g} MACs a step: {rounded.synops:.3g} and loss "
            f"{100 * rounded.loss:.2f}% rounded"
            + (f", {best.synops:.3g} and {100 * best.loss:.2f}% with {name}" * (name != _PLAIN))
        )
        return best

    def _versions(self, policy: Policy) -> Mapping[str, Policy]:
        """Rounded as it is, and fine-tuned where its network can be."""
        key = digest(policy)
        record = self._folder / f"{key}.json"
        if record.exists():
            files = json.loads(record.read_text(encoding="utf-8"))
            return {name: Policy.load(self._folder / file) for name, file in files.items()}
        inputs = self._arena.inputs(policy, self._samples)
        versions = {_PLAIN: quantize(policy, self._bits, inputs)}
        for name, training in WAYS.items():
            seed = np.random.SeedSequence([self._seed, *key.encode()]).generate_state(1)[0]
            try:
                tuned = fine_tuned(policy, self._bits, inputs, training, int(seed) >> 1)
            except SimulationError:
                continue  # it diverged; there are other versions
            if tuned is not None:
                versions[f"fine-tuning, {name}"] = tuned
        files = {}
        for k, (name, version) in enumerate(versions.items()):
            files[name] = f"{key}-{k}.safetensors"
            version.save(self._folder / files[name])
        write_atomically(record, lambda path: write_text(path, json.dumps(files) + "\n"))
        return versions


def _fixed(candidate: Candidate, policy: Policy, macs: float, acs: float) -> Fixed:
    return Fixed(
        candidate.kind,
        policy,
        tuple(candidate.shape),
        macs,
        acs,
        candidate.returns,
        candidate.dense_macs,
    )
