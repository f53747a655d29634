"""The optimisation from end to end, with a search that has its candidates beforehand."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import eventsim
from eventsim import cli, optimize_rounding, optimize_run
from eventsim.errors import InputError, OutputError, UnknownNameError
from eventsim.models.arena import Arena
from eventsim.models.bounds import Pairs
from eventsim.models.candidate import dense_macs_of
from eventsim.models.policy import Policy
from eventsim.models.rounding import WAYS
from eventsim.optimize_outcome import FRONT_COLUMNS, Outcome, Point, mark_front
from eventsim.optimize_run import Entry, optimize, shortlist
from eventsim.optimize_state import Settings, seconds_of, seeds_of
from tests.fake_search import ENV, FakeSearch, Found, linear, teacher
from tests.tiny import cartpole_policy

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "eventsim" / "schemas" / "eventsim-optimize-1.schema.json"
KEYS = {
    "schema", "teacher", "policy", "env", "episodes", "dense_macs", "small_dense", "macs", "acs",
    "reduction", "gain_over_small_dense", "factors", "relative_loss", "promise_holds",
    "weight_bits", "bytes", "seconds", "seeds",
}  # fmt: skip
SETTINGS = Settings(max_loss=0.06, budget=600.0)


def optimized(folder: Path, policy: Policy | None = None, **options: Any) -> Outcome:
    options = {"settings": SETTINGS, "search": FakeSearch, **options}
    return optimize(policy or teacher(), out=folder / "best.safetensors", **options)


def compared(outcome: dict[str, Any]) -> dict[str, Any]:
    """What must be the same whether or not the run was interrupted."""
    return {key: value for key, value in outcome.items() if key not in ("seconds", "policy")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome, list[str]]:
    folder = tmp_path_factory.mktemp("optimized")
    said: list[str] = []
    return folder, optimized(folder, say=said.append), said


def test_the_cheapest_that_holds_is_chosen(finished: tuple[Path, Outcome, list[str]]) -> None:
    data = finished[1].to_dict()
    assert set(data) == KEYS
    assert data["dense_macs"] == 48
    assert data["small_dense"] == {"shape": [4, 2], "macs": 8, "relative_loss": 0.0}
    assert data["reduction"] == pytest.approx(48 / data["macs"])
    assert data["gain_over_small_dense"] == pytest.approx(8 / data["macs"])
    factors = data["factors"]
    assert factors["shrink"] == 6.0
    assert factors["prune"] == 2.0
    assert math.prod(factors.values()) == pytest.approx(data["reduction"])
    assert data["promise_holds"]
    assert data["relative_loss"]["mean"] <= data["relative_loss"]["upper95"] <= 0.06
    assert data["episodes"] >= 100
    assert finished[1].promise_holds
    assert repr(finished[1]).startswith("<Outcome: tests.tiny:ShortPole-v0, reduction")


def test_several_processes_promise_the_same(
    finished: tuple[Path, Outcome, list[str]], tmp_path: Path
) -> None:
    outcome = optimized(tmp_path, settings=replace(SETTINGS, jobs=2))
    assert compared(outcome.to_dict()) == compared(finished[1].to_dict())


def test_the_outcome_keeps_its_schema(finished: tuple[Path, Outcome, list[str]]) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="the schema needs jsonschema")
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(finished[1].to_dict(), schema, cls=jsonschema.Draft202012Validator)
    assert set(schema["properties"]) == KEYS


def test_what_is_written(finished: tuple[Path, Outcome, list[str]]) -> None:
    folder, outcome, _ = finished
    names = ("best.safetensors", "best.front.csv", "best.front.png", "best.optimize.json")
    assert outcome.files == tuple(folder / name for name in names)
    data = json.loads((folder / names[3]).read_text(encoding="utf-8"))
    assert data == outcome.to_dict()
    policy = Policy.load(folder / names[0])
    assert policy.env_id == ENV
    assert policy.metadata["relative_loss"] == data["relative_loss"]
    assert policy.metadata["optimize"]["promise_holds"] is True
    with (folder / names[1]).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == FRONT_COLUMNS
    assert [row["kind"] for row in rows] == ["teacher", "small dense", *["candidate"] * 3]
    assert [row["verdict"] for row in rows[2:]] == ["loses", "holds", ""]
    chosen = rows[3]
    assert (chosen["chosen"], chosen["on_front"], chosen["shape"]) == ("1", "1", "4-2")
    assert float(chosen["macs"]) == pytest.approx(data["macs"])
    assert (folder / names[2]).read_bytes().startswith(b"\x89PNG")


def test_the_promised_figures_are_those_of_the_saved_policy(
    finished: tuple[Path, Outcome, list[str]],
) -> None:
    folder, outcome, _ = finished
    data = outcome.to_dict()
    first, last = data["seeds"]["test"]
    assert last - first + 1 == data["episodes"]
    run = eventsim.run(
        folder / "best.safetensors", episodes=5, seed=first, progress=False, record_events=False
    )
    assert run.returns.tolist() == [60.0] * 5
    assert run.total["macs"] == pytest.approx(data["macs"], rel=0.2)
    assert run.total["dense_macs"] == dense_macs_of((4, 2))


def test_it_says_beforehand_what_the_promise_needs(
    finished: tuple[Path, Outcome, list[str]],
) -> None:
    said = finished[2]
    assert "48 multiplications a step, random actions" in said[0]
    assert re.search(r"loss of at most 6% takes \d+ episodes beside the teacher's", said[1])
    assert said[2:5] == ["stage 1", "stage 2", "stage 3"]
    assert any("1 of 3: 0.5 MACs a step" in text and "loses" in text for text in said)
    assert any(re.search(r"promise will need about \d+ fresh episodes", text) for text in said)


def test_the_table(finished: tuple[Path, Outcome, list[str]]) -> None:
    table = finished[1].table()
    names = [row[0] for row in table.cells()]
    assert names == ["teacher, dense", "smallest dense, 4-2", "pruned", "pruned + events"]
    notes = " ".join(table.notes)
    assert "6 (smaller network) x 2 (pruned)" in notes
    assert "the promise holds" in notes
    assert "provided that no episode loses more than" in notes


def test_the_purposes_have_seeds_of_their_own() -> None:
    ranges = [r for seed in (0, 1, 7, 999) for r in seeds_of(seed).values()]
    ends = sorted((r.start, r.stop) for r in ranges)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(ends))
    assert ends[-1][1] < 2**31


def test_fresh_seeds_are_played_by_no_stage(finished: tuple[Path, Outcome, list[str]]) -> None:
    folder, outcome, _ = finished
    lines = (folder / "best.work" / "episodes.jsonl").read_text().splitlines()
    test = outcome.data["seeds"]["test"]
    played = {key for key, seed, *_ in map(json.loads, lines) if test[0] <= seed <= test[1]}
    # The chosen policy, the smallest dense student and the teacher; no other candidate.
    assert len(played) == 3


def test_the_same_call_again_finds_all_done(
    finished: tuple[Path, Outcome, list[str]], tmp_path: Path
) -> None:
    folder, outcome, _ = finished
    log = folder / "best.work" / "episodes.jsonl"
    before = log.read_bytes()
    again = optimized(folder, say=lambda text: None)
    assert log.read_bytes() == before
    assert compared(again.to_dict()) == compared(outcome.to_dict())


class StoppedError(Exception):
    """Raised in place of Ctrl-C, which pytest takes for its own."""


@pytest.mark.parametrize("after", [10, 300])
def test_an_interrupted_run_continues_to_the_same_result(
    after: int,
    finished: tuple[Path, Outcome, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = optimize_run.State
    ticks = iter(range(10**6))

    class Interrupted(state):  # type: ignore[misc, valid-type]
        def tick(self, force: bool = False) -> None:
            super().tick(force)
            if next(ticks) == after:
                raise StoppedError

    monkeypatch.setattr(optimize_run, "State", Interrupted)
    with pytest.raises(StoppedError):
        optimized(tmp_path)
    monkeypatch.setattr(optimize_run, "State", state)
    said: list[str] = []
    outcome = optimized(tmp_path, say=said.append)
    assert said[0].startswith("continuing in")
    assert compared(outcome.to_dict()) == compared(finished[1].to_dict())


@pytest.mark.slow
def test_a_killed_process_continues_to_the_same_result(
    finished: tuple[Path, Outcome, list[str]], tmp_path: Path
) -> None:
    code = f"""
import os, signal, sys
from pathlib import Path
from eventsim import optimize_run
from tests.test_optimize import optimized

played = 0
class Killed(optimize_run.State):
    def tick(self, force=False):
        global played
        played += 1
        if played == 400:
            os.kill(os.getpid(), signal.SIGKILL)
        super().tick(force)

optimize_run.State = Killed
optimized(Path({str(tmp_path)!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    log = tmp_path / "best.work" / "episodes.jsonl"
    # As if the kill had come in the middle of a line.
    with log.open("a", encoding="utf-8") as file:
        file.write('["teacher')
    outcome = optimized(tmp_path)
    assert compared(outcome.to_dict()) == compared(finished[1].to_dict())


def test_what_was_chosen_and_tested_before_is_not_the_search_s_to_spend(tmp_path: Path) -> None:
    budgets = []

    def make(*arguments: Any, **options: Any) -> FakeSearch:
        budgets.append(options["budget"])
        return FakeSearch(*arguments, **options)

    for minutes in (0, 2):
        state = tmp_path / "out.work" / "state.json"
        if minutes:
            content = json.loads(state.read_text("utf-8"))
            # Of two minutes more, half a minute was the search's.
            content["seconds"] += 120.0
            content["search_seconds"] += 30.0
            state.write_text(json.dumps(content), "utf-8")
        optimize(teacher(), out=tmp_path / "out.safetensors", settings=SETTINGS, search=make)
    assert budgets[0] - budgets[1] == pytest.approx(90.0, abs=10.0)


def test_a_folder_of_another_optimisation_is_not_continued(
    finished: tuple[Path, Outcome, list[str]],
) -> None:
    folder = finished[0]
    with pytest.raises(InputError, match=r"another max_loss and seed.*choose another workdir"):
        optimized(folder, settings=replace(SETTINGS, max_loss=0.05, seed=1))
    # More time is no other optimisation.
    optimized(folder, settings=replace(SETTINGS, budget=700.0))


class Worse(FakeSearch):
    """Finds nothing but what falls."""

    def stages(self) -> Iterator[str]:
        yield from super().stages()
        del self.candidates[1:]

    def smallest_dense(self, most: float) -> None:
        return None


def test_where_nothing_holds_the_teacher_itself_is_left(tmp_path: Path) -> None:
    data = optimized(tmp_path, search=Worse).to_dict()
    assert data["promise_holds"]
    assert data["relative_loss"]["mean"] == 0.0
    assert data["factors"]["shrink"] == 1.0
    assert data["reduction"] > 1.0
    assert data["small_dense"] is None
    assert data["gain_over_small_dense"] is None


class NoSmaller(FakeSearch):
    """Knows no smaller dense network than the teacher."""

    def smallest_dense(self, most: float) -> Found:
        shape = tuple(p.size for p in self.teacher.network.populations)
        return Found(self.teacher, shape, float(self.teacher.dense_macs), 0.0, "dense")


def test_the_teacher_plays_no_test_episodes_against_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played: list[Policy] = []
    pairs = Arena.pairs

    def spy(arena: Arena, policy: Policy, seeds: Any) -> Pairs:
        played.append(policy)
        return pairs(arena, policy, seeds)

    monkeypatch.setattr(Arena, "pairs", spy)
    taught = teacher()
    data = optimized(tmp_path, taught, search=NoSmaller).to_dict()
    assert data["small_dense"] == {"shape": [4, 8, 2], "macs": 48, "relative_loss": 0.0}
    assert played
    assert not any(policy is taught for policy in played)


def test_a_promise_that_does_not_hold_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Too few seeds for any promise, which is not noticed beforehand.
    monkeypatch.setattr(optimize_run, "MOST_EPISODES", 60)
    monkeypatch.setattr(optimize_run, "LEAST_EPISODES", 50)
    monkeypatch.setattr(optimize_run, "describe_need", lambda *_: (10, 10))
    outcome = optimized(tmp_path, settings=replace(SETTINGS, max_loss=0.05))
    data = outcome.to_dict()
    assert not data["promise_holds"]
    assert data["relative_loss"]["upper95"] > 0.05
    notes = " ".join(outcome.table().notes)
    assert "does NOT hold" in notes
    assert "No candidate was shown to lose less than 5%" in notes


def entry(macs: float, loss: float) -> Entry:
    return Entry(Found(linear([0.0, 0.0, 1.0, 0.5]), (4, 2), macs, loss), loss)


def test_the_shortlist_reaches_beyond_the_steps_of_one_refinement() -> None:
    many = [entry(20.0 + 0.1 * k, 0.004 - 1e-5 * (k % 2)) for k in range(40)]
    wider = [entry(40.0, 0.003), entry(90.0, 0.0035)]
    chosen = shortlist([*many, *wider], 0.01)
    assert wider[0] in chosen
    assert wider[1] in chosen
    assert len(chosen) <= 6


def test_the_shortlist_is_near_the_limit_and_short() -> None:
    many = [entry(1.0 + k, 0.5 / (1.0 + k)) for k in range(200)]
    chosen = shortlist(many, 0.01)
    assert len(chosen) == optimize_run.MOST_CANDIDATES
    assert all(one.loss <= 0.03 for one in chosen)
    assert [one.synops for one in chosen] == sorted(one.synops for one in chosen)
    bad = [entry(1.0, 0.5), entry(2.0, 0.6), entry(3.0, 0.2)]
    assert shortlist(bad, 0.01) == [bad[0], bad[2]]
    # One that was lucky does not hide what is dearer and safe.
    lucky = [entry(1.0, -0.02), entry(2.0, 0.0), entry(3.0, 0.5)]
    assert shortlist(lucky, 0.01) == lucky[:2]


def test_the_front() -> None:
    points = mark_front(
        [
            Point("teacher", "dense", (4, 2), 8.0, 0.0, 1.0, 0.0),
            Point("candidate", "events", (4, 2), 2.0, 1.0, 0.9, 0.1),
            Point("candidate", "events", (4, 2), 4.0, 0.0, 0.8, 0.2),
            Point("candidate", "events", (4, 2), 5.0, 0.0, 1.0, 0.0),
        ]
    )
    assert [p.on_front for p in points] == [False, True, False, True]


# Bad input.


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20m", 1200.0), ("90s", 90.0), ("90", 90.0), ("1.5h", 5400.0), ("1h30m5s", 5405.0), (7, 7.0)],
)
def test_durations(text: str | float, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "20 minutes", "-5m", "1..5h", "m"])
def test_a_duration_that_is_none(text: str) -> None:
    with pytest.raises(InputError, match=r"'budget'.*such as 90s, 20m or 1h30m"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"max_loss": 0.0}, "'max_loss'.*between 0 and 1"),
        ({"max_loss": math.nan}, "'max_loss'.*between 0 and 1"),
        ({"budget": 0.0}, "'budget'.*above 0"),
        ({"budget": math.inf}, "'budget'.*above 0"),
        ({"weight_bits": 16}, "'weight_bits'.*32, 8 or 4"),
        ({"seed": -1}, "'seed'.*0 or more"),
        ({"jobs": 0}, "'jobs'.*1 or more"),
    ],
)
def test_settings_out_of_range(changed: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        Settings(**changed)


def test_a_budget_too_small_for_the_promise_is_said_at_once(tmp_path: Path) -> None:
    class Never(FakeSearch):
        def stages(self):  # type: ignore[no-untyped-def]
            raise AssertionError

    with pytest.raises(InputError, match=r"'budget'.*too small: \d+ episodes to choose.*at least"):
        optimized(tmp_path, settings=Settings(1e-3, 1.0), search=Never)


def test_what_the_search_played_is_known_to_the_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Telling(FakeSearch):
        def pairs(self, one: Found) -> Pairs:
            return Pairs([one.macs], [1.0], [0.0])

    told: list[Any] = []
    choose = optimize_run.choose

    def spy(count: int, *arguments: Any, known: Any, **options: Any) -> Any:
        told.extend(known(k) for k in range(count))
        return choose(count, *arguments, known=known, **options)

    monkeypatch.setattr(optimize_run, "choose", spy)
    optimized(tmp_path, search=Telling)
    assert [float(pairs.policy[0]) for pairs in told] == [0.5, 3.0, 20.0]


def test_a_limit_that_no_number_of_episodes_shows(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'max_loss'.*more than the 20,000"):
        optimized(tmp_path, settings=Settings(1e-5, 1e6))


def test_a_policy_no_better_than_random(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"it is not better than random.*trained policy"):
        optimized(tmp_path, linear([0.0, 0.0, -1.0, 0.0]))


def test_an_environment_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"observations of shape \(4,\).*gives shape \(3,\)"):
        optimized(tmp_path, env="Pendulum-v1")
    with pytest.raises(UnknownNameError, match="there is no environment"):
        optimized(tmp_path / "other", env="NoSuch-v7")
    with pytest.raises(InputError, match="name one by env"):
        optimized(tmp_path / "third", replace(teacher(), metadata={}))


class Moody(gym.Env[Any, Any]):
    """An episode depends on more than its seed, or its reward is no number."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float64)
    action_space = gym.spaces.Discrete(2)
    played = 0

    def __init__(self, nan_from: int = -1) -> None:
        self._nan_from = nan_from

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        Moody.played += 1
        return np.array([0.0, 0.0, 1.0, 0.0]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        nan = 0 <= self._nan_from <= Moody.played
        mood = Moody.played if self._nan_from < 0 else 0
        return np.zeros(4), math.nan if nan else 10.0 * action + mood, True, False, {}


gym.register("Moody-v0", Moody)


def test_a_teacher_that_is_not_deterministic(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"two episodes.*differ.*must be deterministic"):
        optimized(tmp_path, env="Moody-v0")


# Gymnasium warns of it too.
@pytest.mark.filterwarnings("ignore:.*reward is a NaN:UserWarning")
def test_rewards_that_are_not_numbers(tmp_path: Path) -> None:
    Moody.played = 0
    policy = teacher().with_metadata(env_id="Moody-v0", env_kwargs={"nan_from": 20})
    with pytest.raises(InputError, match=r"reward nan; it must be finite \(seed \d+, step 0\)"):
        optimized(tmp_path, policy)


def test_losses_that_are_not_numbers(tmp_path: Path) -> None:
    class Diverged(FakeSearch):
        def stages(self):  # type: ignore[no-untyped-def]
            yield from super().stages()
            self.candidates[1] = replace(self.candidates[1], lost=math.nan)

    with pytest.raises(InputError, match=r"1 of 3 candidates.*not finite.*diverged"):
        optimized(tmp_path, search=Diverged)


def test_a_search_without_candidates(tmp_path: Path) -> None:
    class Empty(FakeSearch):
        def stages(self):  # type: ignore[no-untyped-def]
            yield "nothing found"

    said: list[str] = []
    outcome = optimized(tmp_path, search=Empty, say=said.append)
    assert outcome.promise_holds
    assert "the search found nothing in its part of the budget" in said


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another place"):
        optimized(tmp_path / "file" / "below")


@pytest.mark.parametrize("content", ["{}", "not json", '{"identity": 3}'])
def test_a_damaged_state_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "best.work").mkdir()
    (tmp_path / "best.work" / "state.json").write_text(content)
    with pytest.raises(eventsim.EventsimError, match=r"state.json.*delete the folder"):
        optimized(tmp_path)


def test_a_damaged_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "best.work").mkdir()
    (tmp_path / "best.work" / "episodes.jsonl").write_text("[1, 2]\n")
    with pytest.raises(InputError, match=r"episodes.jsonl.*line 1 is damaged"):
        optimized(tmp_path)


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_of_few_bits(
    bits: int,
    tmp_path: Path,
    finished: tuple[Path, Outcome, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("torch", reason="needs the extra 'train'")
    quick = {name: replace(way, iterations=5) for name, way in WAYS.items()}
    monkeypatch.setattr(optimize_rounding, "WAYS", quick)
    outcome = optimized(tmp_path, settings=replace(SETTINGS, weight_bits=bits))
    data = outcome.to_dict()
    assert data["weight_bits"] == bits
    assert data["promise_holds"]
    assert data["bytes"] < finished[1].data["bytes"]
    assert Policy.load(tmp_path / "best.safetensors").metadata["weight_bits"] == bits


# The command.


def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "argv", ["eventsim", "optimize", *map(str, arguments)])
    monkeypatch.setattr(optimize_run, "_own_search", lambda *_: FakeSearch)
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    return (code, *capsys.readouterr())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "teacher.safetensors"
    teacher().save(path)
    return path


def test_the_command(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = file.parent / "best.safetensors"
    arguments = (file, "--env", ENV, "--max-loss", 0.06, "--budget", "5m", "-o", out)
    code, printed, errors = command(monkeypatch, capsys, *arguments)
    assert code == 0, errors
    assert "trying 3 candidates" in errors
    for text in ("teacher, dense", "smallest dense, 4-2", "pruned + events", "Written to"):
        assert text in printed
    code, printed, errors = command(monkeypatch, capsys, *arguments, "--json")
    assert code == 0
    data = json.loads(printed)
    assert set(data) == KEYS
    assert data["teacher"] == str(file)
    assert data["policy"] == str(out)
    assert "continuing in" in errors
    assert "pruned + events" in errors


def test_mistakes_end_with_one_sentence(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = file.parent / "best.safetensors"
    for arguments, text in (
        ((file, "-o", out, "--budget", "soon"), "such as 90s, 20m or 1h30m"),
        ((file, "-o", out, "--max-loss", 2), "between 0 and 1"),
        ((file, "-o", out, "--weight-bits", 7), "give 32, 8 or 4"),
        ((file, "-o", out.with_suffix(".txt")), "give it that suffix"),
        ((file.with_name("none.zip"), "-o", out), "none.zip"),
    ):
        code, printed, errors = command(monkeypatch, capsys, *arguments)
        assert code == 2
        assert printed == ""
        assert len(errors.strip().splitlines()) == 1
        assert text in errors


def test_ctrl_c_says_how_to_go_on(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(FakeSearch):
        def stages(self):  # type: ignore[no-untyped-def]
            raise KeyboardInterrupt

    monkeypatch.setattr(optimize_run, "_own_search", lambda *_: Interrupted)
    monkeypatch.setattr(
        sys, "argv", ["eventsim", "optimize", str(file), "-o", str(file.parent / "x.safetensors")]
    )
    # The fake is set after `command` would have set its own.
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 130
    assert "the same command continues" in capsys.readouterr().err


def test_a_teacher_with_thresholds_plays_by_events(tmp_path: Path) -> None:
    # The thresholds are a part of it: with so large ones it never acts, and falls.
    with pytest.raises(InputError, match="not better than random"):
        optimized(tmp_path, cartpole_policy(50.0).with_metadata(env_id=ENV))


def test_an_effort_that_makes_no_sense_is_not_written_down(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    target = tmp_path / "best.safetensors"
    for effort in ({"starts": -1}, {"no_such_field": 1}):
        with pytest.raises(InputError, match=r"is -1; give 0 or more|field that is unknown"):
            optimize(teacher(), ENV, out=target, settings=SETTINGS, effort=effort)
    assert not list(tmp_path.glob("best.work/*"))
