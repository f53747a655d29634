"""What hints and a centred brightness are worth to dense students of pictures.

    python -m tests.hints --teachers runs/atari/pong --out docs/benchmarks/hints.json

Every student sees the same recorded steps of its teacher and as many batches; those of the last
episodes are kept from it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from eventsim.models import picture_distill
from eventsim.models.candidate import settings_for
from eventsim.models.distill import Training
from eventsim.models.families import PictureFamily
from eventsim.models.playground import Playground
from eventsim.models.policy import Policy
from eventsim.models.rollout import make_for
from eventsim.models.student import Demonstrations
from eventsim.simulator import Simulator
from tests.machine import describe
from tests.optimize_table import write

#: What is compared: the name, whether there are hints, whether brightness is centred.
MADE = (
    ("actions alone", False, False),
    ("hints", True, False),
    ("centred", False, True),
    ("hints, centred", True, True),
)
#: Seed of the first recorded episode, and the part of the steps that is kept for the test.
SEED, TESTED = 40_000, 0.15


def recorded(
    teacher: Policy, family: PictureFamily, steps: int
) -> tuple[Demonstrations, Demonstrations]:
    """Episodes of the teacher: those to learn from, and those to be tested by."""
    ground = Playground(lambda: make_for(teacher, str(teacher.metadata["env_id"])))
    session = teacher.with_network(teacher.network.with_thresholds(0.0)).session()
    films: list[Any] = []
    while sum(map(len, films)) < steps:
        films.append(family.packed(ground.play(session, SEED + len(films), record=True).inputs))
    ground.close()
    answered = family.answers(teacher, films)
    kept = len(films)
    while kept > 1 and sum(map(len, films[kept - 1 :])) <= TESTED * steps:
        kept -= 1
    kept = min(kept, len(films) - 1)
    return (
        Demonstrations(films[:kept], answered[:kept]),
        Demonstrations(films[kept:], answered[kept:]),
    )


def agreement(policy: Policy, shown: Demonstrations, size: int) -> float:
    """Share of steps at which the likeliest action is the teacher's."""
    simulator = Simulator(policy.network)
    same = []
    for film, wanted in zip(shown.inputs, shown.targets, strict=True):
        simulator.reset()
        outputs = simulator.run(film.inputs())
        same.append(outputs.argmax(axis=1) == wanted[:, :size].argmax(axis=1))
    return float(np.concatenate(same).mean())


def measure(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one teacher."""
    teacher = Policy.load(folder / "policy.safetensors")
    family = PictureFamily(teacher)
    size, settings = family.head.size, settings_for(teacher)
    shown, tested = recorded(teacher, family, options.steps)
    plain = Demonstrations(shown.inputs, [y[:, :size] for y in shown.targets])
    shape = family.shapes[options.shape]
    training = Training(
        settings.dense_iterations, settings.windows, batch=settings.dense_batch, events=False
    )
    rows = []
    for name, hinted, centred in MADE:
        found, clock = [], time.perf_counter()
        for seed in range(options.seeds):
            student = family.new(shown, shape, seed, 0)
            brightness = picture_distill._brightness if centred else lambda *_: 0.0
            with mock.patch.object(picture_distill, "_brightness", brightness):
                student = family.train(student, shown if hinted else plain, training, seed)
            policy = student.to_policy(teacher, events=False)
            found.append(agreement(policy, tested, size))
        rows.append(
            {
                "env": teacher.metadata["env_id"],
                "student": family.words(shape),
                "made": name,
                "steps": shown.steps,
                "steps_tested": tested.steps,
                "agreement": found,
                "seconds": (time.perf_counter() - clock) / options.seeds,
            }
        )
        print(rows[-1], flush=True)
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Measure all rows and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teachers", nargs="+", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20_000, help="recorded of each teacher")
    parser.add_argument("--shape", type=int, default=1, help="number of the student, cheapest 0")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    rows = [row for folder in options.teachers for row in measure(folder, options)]
    machine = describe("numpy", "gymnasium", "torch", module="tests.hints")
    write(options.out, {"rows": rows, "machine": machine})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
