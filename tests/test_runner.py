"""Runs: what is counted, what is compared, what is kept after Ctrl-C, and the files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventsim import loop, runner, summary
from eventsim.analysis.energy import load_profile
from eventsim.errors import (
    InputError,
    MissingDependencyError,
    NetworkError,
    OutputError,
    UnknownNameError,
)
from eventsim.models import rollout
from eventsim.network import Network
from eventsim.result import FILES, Run
from eventsim.simulator import Simulator
from eventsim.trace import Counters, EventRecorder, Hook
from tests.run_schema import SCHEMA, validate
from tests.tiny import Scripted, cartpole_policy

ROOT = Path(__file__).resolve().parent.parent
SCRIPTED = "tests.tiny:Tiny-v0"


def scripted(episodes: int = 3, **options: Any) -> Run:
    """A short run in an environment of which the observations do not depend on the actions."""
    return runner.run(cartpole_policy(0.3), SCRIPTED, episodes=episodes, progress=False, **options)


def recorded(run: Run, seed: int, length: int = 20) -> np.ndarray[Any, Any]:
    """The inputs of one episode of `scripted`."""
    del run
    policy = cartpole_policy()
    env = Scripted(length)
    episode = rollout.episode(policy.dense_session(), env, seed, record=True)
    assert episode.inputs is not None
    return episode.inputs


def test_a_run_is_as_the_schema_says() -> None:
    run = runner.run(cartpole_policy(), episodes=2, progress=False)
    data = run.to_dict()
    validate(data)
    assert data["env"] == "CartPole-v1"
    assert data["policy"] == "tiny"
    assert data["episodes"] == 2
    assert data["steps"] == sum(data["return"]["per_episode"])
    assert not data["interrupted"]
    assert data["step_seconds"] == pytest.approx(0.02)
    assert data["step_seconds_source"] == "tau"
    assert [row["device"] for row in data["energy"]] == [
        "loihi", "spinnaker2", "seneca", "cmos45-fp32", "cmos45-fp32-memory", "cpu", "gpu",
    ]  # fmt: skip
    assert json.loads(run.to_json()) == data


@pytest.mark.parametrize("options", [{"dense": False}, {"carry_state": True}, {"devices": []}])
def test_the_schema_holds_for_options(options: dict[str, Any]) -> None:
    data = scripted(**options).to_dict()
    validate(data)
    if "dense" in options:
        assert data["dense_return"] is data["random_return"] is data["relative_loss"] is None


@pytest.mark.parametrize(
    "break_it",
    [
        lambda d: d.pop("encoder_ops"),
        lambda d: d["total"].pop("reduction_at_zero_threshold"),
        lambda d: d["layers"][0].pop("activity_sparsity"),
        lambda d: d["return"].update(mean="500"),
        lambda d: d["energy"][0].pop("unpriced"),
        lambda d: d.update(schema="eventsim-run/2"),
        lambda d: d.update(steps=1.5),
    ],
)
def test_the_schema_refuses_what_is_wrong(break_it: Any) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="the schema needs jsonschema")
    data = scripted(1).to_dict()
    break_it(data)
    with pytest.raises(jsonschema.ValidationError):
        validate(data)


def test_counts_are_those_of_the_simulator() -> None:
    run = scripted(seed=5)
    policy = cartpole_policy(0.3)
    simulator, zero = Simulator(policy.network), Simulator(policy.network.with_thresholds(0.0))
    tables, synops_at_zero = [], 0
    for seed in (5, 6, 7):
        simulator.reset()
        zero.reset()
        for x in recorded(run, seed):
            simulator.step(x)
            tables.append(simulator.counters.table)
        zero.run(recorded(run, seed))
        synops_at_zero += zero.totals.synops
    expected = np.array(tables)
    np.testing.assert_array_equal(run.counters.table, expected)
    np.testing.assert_array_equal(run.counters.episode, np.repeat([0, 1, 2], 20))
    np.testing.assert_array_equal(run.counters.step, np.tile(np.arange(20), 3))
    synops = expected[:, :, 2:4].sum(axis=(1, 2))
    first = np.isin(np.arange(60), [0, 20, 40])
    total = run.total
    assert total["dense_macs"] == 48
    assert total["macs"] == pytest.approx(synops.sum() / 60)
    assert total["acs"] == 0
    assert total["reduction"] == 48 * 60 / synops.sum()
    assert total["reduction_after_first_step"] == 48 * 57 / synops[~first].sum()
    assert total["reduction_weights_only"] == 48 / policy.network.n_synapses
    assert total["reduction_at_zero_threshold"] == 48 * 60 / synops_at_zero
    assert synops_at_zero > synops.sum()
    hidden = run.layers[1]
    assert hidden["events"] == expected[:, 1, 1].sum() / 60
    # Four of the eight hidden neurons have outgoing synapses.
    assert hidden["activity_sparsity"] == pytest.approx(1.0 - expected[:, 1, 1].sum() / 240)
    assert run.data["input_comparisons"] == 4


def test_carried_state_starts_cold_once() -> None:
    run = scripted(carry_state=True)
    simulator = Simulator(cartpole_policy(0.3).network)
    outputs = [simulator.run(recorded(run, seed)) for seed in (0, 1, 2)]
    assert len(outputs) == 3
    assert int(run.counters.synops.sum()) == simulator.totals.synops
    np.testing.assert_array_equal(run.counters.episode, np.repeat([0, 1, 2], 20))
    events = run.events
    assert events is not None
    counted = np.zeros((3, 20), np.int64)
    np.add.at(counted, (events["episode"], events["step"]), 1)
    np.testing.assert_array_equal(counted.reshape(-1), run.counters.events.sum(axis=1))
    # Time runs on with the state; a step takes a fiftieth of a second.
    assert events["time"][-1] == pytest.approx(59 / 50)
    synops = run.counters.synops
    assert run.total["reduction_after_first_step"] == 48 * 59 / synops[1:].sum()


def test_event_records_and_counters_agree() -> None:
    run = scripted()
    events, table = run.events, run.counters.events
    assert events is not None
    counted = np.zeros((3, 20, 3), np.int64)
    np.add.at(counted, (events["episode"], events["step"], events["population"]), 1)
    np.testing.assert_array_equal(counted.reshape(60, 3), table)
    np.testing.assert_allclose(events["time"], events["step"] / 50)


def test_at_threshold_zero_nothing_is_lost() -> None:
    run = runner.run(cartpole_policy(), episodes=3, threshold=0.0, progress=False)
    assert run.dense_returns is not None
    np.testing.assert_array_equal(run.returns, run.dense_returns)
    loss = run.data["relative_loss"]
    assert loss == {"mean": 0.0, "ci95": [0.0, 0.0]}
    assert run.total["reduction_at_zero_threshold"] == run.total["reduction"]


def test_thresholds_are_set_or_scaled() -> None:
    coarse = scripted(threshold=1.0)
    assert all((p.parameter("threshold") == 1.0).all() for p in coarse.network.populations)
    assert coarse.data["threshold"] == 1.0
    scaled = scripted(threshold_scale=2.0)
    np.testing.assert_allclose(scaled.network["input"].parameter("threshold"), 0.6)
    assert coarse.total["macs"] < scaled.total["macs"] < scripted().total["macs"]


def test_episode_i_starts_from_seed_plus_i() -> None:
    both, second = scripted(2, seed=3), scripted(1, seed=4)
    for name in ("return", "dense_return", "random_return"):
        values = [run.data[name]["per_episode"] for run in (both, second)]
        assert values[0][1] == values[1][0]
    assert both.data["random_return"]["per_episode"][0] != second.data["random_return"]["mean"]


def test_two_runs_are_the_same() -> None:
    first, second = scripted(), scripted()
    assert first.to_json() == second.to_json()
    assert first.events is not None
    assert second.events is not None
    for name, array in first.events.items():
        np.testing.assert_array_equal(array, second.events[name])


def test_an_environment_of_the_users_own() -> None:
    env = Scripted()
    run = runner.run(cartpole_policy(0.3), env, episodes=2, progress=False)
    assert run.data["env"] == "Scripted"
    assert run.to_dict()["total"] == scripted(2).to_dict()["total"]
    assert run.data["dense_return"] == scripted(2).data["dense_return"]


def test_a_users_hook_sees_every_step() -> None:
    class Count(Hook):
        steps = 0

        def on_step(self, step: int, counters: Counters) -> None:
            self.steps += 1

    hook = Count()
    scripted(2, hooks=[hook])
    assert hook.steps == 40


def test_joules_per_step_are_in_the_counters(tmp_path: Path) -> None:
    run = scripted(devices=["loihi", load_profile("seneca")], out=tmp_path)
    frame = run.to_dataframe("counters")
    for row in run.energy:
        column = frame[f"joules_{row['device']}"]
        assert column.sum() / 60 == pytest.approx(row["event_joules_per_step"], rel=1e-12)


def test_devices_are_checked_first() -> None:
    with pytest.raises(UnknownNameError, match="did you mean loihi"):
        scripted(devices=["lohi"])
    with pytest.raises(InputError, match="named twice"):
        scripted(devices=["cpu", "cpu"])


def test_the_step_can_be_told() -> None:
    run = scripted(step_seconds=0.5, devices=["loihi"])
    assert run.data["step_seconds_source"] == "given"
    assert run.energy[0]["static_joules_per_step"] == pytest.approx(0.104 * 0.5)
    assert run.events is not None
    assert run.events["time"].max() == pytest.approx(19 * 0.5)
    with pytest.raises(InputError, match="step_seconds"):
        scripted(step_seconds=0.0)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"episodes": 0}, InputError, "episodes"),
        ({"threshold": -1.0}, InputError, "threshold"),
        ({"threshold": math.nan}, InputError, "threshold"),
        ({"threshold_scale": math.inf}, NetworkError, "threshold scale"),
        ({"threshold": 0.1, "threshold_scale": 1.0}, InputError, "not both"),
        ({"engine": "warp"}, UnknownNameError, "engine"),
    ],
)
def test_arguments_out_of_range(options: dict[str, Any], error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        scripted(**{"episodes": 1} | options)


def test_a_policy_without_environment() -> None:
    policy = cartpole_policy().with_metadata(env_id=None)
    with pytest.raises(InputError, match="--env"):
        runner.run(policy, progress=False)
    with pytest.raises(InputError, match="--env"):
        runner.evaluate(policy, progress=False)


def test_the_wrong_environment() -> None:
    with pytest.raises(InputError, match=r"shape \(4,\), the environment gives shape \(6,\)"):
        runner.run(cartpole_policy(), "Acrobot-v1", progress=False)
    with pytest.raises((UnknownNameError, MissingDependencyError), match="CartPole-v"):
        runner.run(cartpole_policy(), "CartPole-v7", progress=False)


def test_arguments_of_the_policys_own_environment() -> None:
    policy = cartpole_policy().with_metadata(env_id=SCRIPTED, env_kwargs={"length": 7})
    assert runner.run(policy, episodes=1, progress=False).data["steps"] == 7
    assert runner.run(policy, SCRIPTED, episodes=1, progress=False).data["steps"] == 7
    assert runner.run(policy, "CartPole-v1", episodes=1, progress=False).data["steps"] > 7


@pytest.mark.parametrize("when", [0, 7])
def test_an_observation_that_is_not_finite(when: int) -> None:
    env = Scripted(nan_at=when)
    with pytest.raises(InputError, match=rf"finite.*seed 0, step {when + 1}"):
        runner.run(cartpole_policy(), env, episodes=1, progress=False)


def test_a_reward_that_is_not_finite() -> None:
    with pytest.raises(InputError, match="reward nan"):
        runner.run(cartpole_policy(), Scripted(reward_nan_at=3), episodes=1, progress=False)


class Press(Hook):
    """Ctrl-C while the n-th step is under way, after the simulator has done it."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_step(self, step: int, counters: Counters) -> None:
        self.at -= 1
        if self.at < 0:
            raise KeyboardInterrupt


@settings(max_examples=15)
@given(st.integers(1, 59), st.booleans())
def test_what_was_recorded_before_an_interrupt_is_kept(at: int, carry_state: bool) -> None:
    whole = scripted(carry_state=carry_state, devices=["cpu"])
    cut = scripted(carry_state=carry_state, devices=["cpu"], hooks=[Press(at)])
    assert cut.interrupted
    assert cut.data["steps"] == at
    validate(cut.to_dict())
    np.testing.assert_array_equal(cut.counters.table, whole.counters.table[:at])
    np.testing.assert_array_equal(cut.counters.reward, whole.counters.reward[:at])
    assert cut.data["return"]["per_episode"] == whole.returns.tolist()[: at // 20]
    assert (
        cut.data["dense_return"]["per_episode"]
        == whole.data["dense_return"]["per_episode"][: at // 20]
    )
    assert cut.events is not None
    assert whole.events is not None
    n = int(whole.counters.events[:at].sum())
    for name, array in cut.events.items():
        np.testing.assert_array_equal(array, whole.events[name][:n])
    again = scripted(carry_state=carry_state, devices=["cpu"], hooks=[Press(at)])
    assert again.to_json() == cut.to_json()


def test_an_interrupt_before_the_first_step_is_passed_on() -> None:
    with pytest.raises(KeyboardInterrupt):
        scripted(hooks=[Press(0)])


def test_a_signal_leaves_valid_files(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    run = runner.run(
        cartpole_policy(0.3),
        "tests.tiny:TinyInterrupted-v0",
        episodes=10,
        out=tmp_path,
        progress=False,
    )
    assert run.interrupted
    data = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    validate(data)
    assert data["interrupted"]
    assert data["steps"] == 30
    assert data["episodes"] == 1
    assert pq.read_table(tmp_path / "counters.parquet").num_rows == 30 * 3
    assert pq.read_table(tmp_path / "events.parquet").num_rows == run.counters.events.sum()


def test_files(tmp_path: Path) -> None:
    import pandas as pd

    folder = tmp_path / "new" / "folder"
    run = scripted(out=folder)
    names = set(FILES)
    assert {path.name for path in folder.iterdir()} == names
    assert json.loads((folder / "run.json").read_text(encoding="utf-8")) == run.to_dict()
    assert (folder / "raster.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    counters = pd.read_parquet(folder / "counters.parquet")
    pd.testing.assert_frame_equal(counters, run.to_dataframe("counters"))
    assert list(counters.columns[:8]) == [
        "episode", "step", "population", "reward", "evaluations", "events", "macs", "acs",
    ]  # fmt: skip
    assert counters["reward"].sum() == pytest.approx(3 * run.counters.reward.sum())
    assert len(counters) == 60 * 3
    assert counters.groupby("population", observed=True)["macs"].sum()["hidden1"] == (
        run.counters.macs[:, 1].sum()
    )
    events = pd.read_parquet(folder / "events.parquet")
    pd.testing.assert_frame_equal(events, run.to_dataframe("events"))
    assert set(events["population"]) == {"input", "hidden1"}


def test_unpriced_work_is_null_in_the_files(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    run = scripted(devices=["loihi2"], out=tmp_path)
    column = pq.read_table(tmp_path / "counters.parquet")["joules_loihi2"]
    assert column.null_count == int(np.isnan(run.joules["loihi2"]).sum()) > 0
    assert run.energy[0]["event_joules_per_step"] is None


def test_without_records_only_the_figures_are_written(tmp_path: Path) -> None:
    scripted(out=tmp_path)
    run = scripted(record_events=False, out=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "run.json", "network.safetensors", "counters.parquet",
    }  # fmt: skip
    with pytest.raises(InputError, match="record_events"):
        run.raster()
    with pytest.raises(InputError, match="record_events"):
        run.to_dataframe("events")


def test_a_file_that_fails_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(1, out=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    run = scripted(2)

    def full(path: Path, text: str) -> None:
        path.write_text(text[:10], encoding="utf-8")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("eventsim.result.write_text", full)
    with pytest.raises(OutputError, match=r"run\.json.*No space left"):
        run.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(before)
    assert (tmp_path / "run.json").read_bytes() == before["run.json"]


def test_a_folder_that_cannot_be_written_is_told_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    with pytest.raises(OutputError, match="cannot be written"):
        scripted(hooks=[Press(0)], out=tmp_path / "file" / "folder")


def test_tables_as_dataframes() -> None:
    run = scripted()
    layers = run.to_dataframe()
    assert list(layers["name"]) == ["input", "hidden1", "output"]
    assert list(layers["macs"]) == [row["macs"] for row in run.layers]
    assert list(run.to_dataframe("energy")["device"]) == [row["device"] for row in run.energy]
    episodes = run.to_dataframe("episodes")
    assert list(episodes.columns) == ["return", "dense_return", "random_return"]
    assert list(episodes["return"]) == run.returns.tolist()
    with pytest.raises(UnknownNameError, match="layers, energy"):
        run.to_dataframe("nothing")


def test_html_is_escaped() -> None:
    policy = cartpole_policy(0.3)
    populations = tuple(
        type(p)("<b>&", p.size, p.neuron) if p.name == "hidden1" else p
        for p in policy.network.populations
    )
    projections = tuple(
        type(q)(*(n.replace("hidden1", "<b>&") for n in (q.source, q.target)), q.weights)
        for q in policy.network.projections
    )
    strange = policy.with_network(Network(populations, projections, name="<script>"))
    run = runner.run(strange, SCRIPTED, episodes=1, progress=False)
    html = run._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "<b>&<" not in html
    assert "&lt;b&gt;&amp;" in html
    assert html.count("<table") == html.count("</table>") == 3
    assert "reduction" in repr(run)


def test_the_raster_shows_one_episode() -> None:
    run = scripted()
    ax = run.raster(episode=1)
    assert ax.get_xlim() == (-0.5, 19.5)
    top = next(child for child in ax.child_axes if child.get_label() == "reward")
    assert top.get_title(loc="left") == f"tiny in {SCRIPTED}: episode 2"
    short = run.raster(max_steps=5)
    top = next(child for child in short.child_axes if child.get_label() == "reward")
    assert top.get_title(loc="left").endswith("the first 5 of 20 steps")
    with pytest.raises(InputError, match="episode"):
        run.raster(episode=3)


def test_actions_are_kept_and_drawn(tmp_path: Path) -> None:
    run = scripted(out=tmp_path)
    actions = run.counters.action
    assert actions is not None
    # The scripted environment pays half more than the number of the action.
    np.testing.assert_array_equal(actions[:, 0] + 0.5, run.counters.reward)
    frame = run.to_dataframe("counters")
    np.testing.assert_array_equal(frame["action"][::3], actions[:, 0])
    ax = run.raster(episode=1, tracks=("reward", "action"))
    assert {child.get_label() for child in ax.child_axes} >= {"reward", "action"}
    track = next(child for child in ax.child_axes if child.get_label() == "action")
    drawn = np.asarray(track.lines[0].get_ydata())
    assert set(np.unique(drawn)) == set(np.unique(actions[20:40]))
    bare = run.raster(tracks=())
    assert not {child.get_label() for child in bare.child_axes} & {"reward", "action"}
    with pytest.raises(UnknownNameError, match="use reward or action"):
        run.raster(tracks=("score",))


@pytest.mark.parametrize(
    ("action", "kept"),
    [
        (1, [1.0]),
        (np.float32(0.5), [0.5]),
        (np.array([[0.25, -1.0]]), [0.25, -1.0]),
        (np.zeros(33), []),
        ({"a": 1}, []),
        ((np.zeros(2), np.zeros(3)), []),
        ("left", []),
    ],
    ids=str,
)
def test_actions_of_a_few_numbers_are_kept(action: Any, kept: list[float]) -> None:
    assert loop._numbers(action).tolist() == kept


def test_evaluate_measures_returns_alone() -> None:
    policy = cartpole_policy()
    found = runner.evaluate(policy, episodes=3, seed=2, progress=False)
    run = runner.run(policy, episodes=3, seed=2, progress=False)
    assert list(found.returns) == run.returns.tolist()
    assert found.mean == run.data["return"]["mean"]
    assert found.std == run.data["return"]["std"]
    dense = runner.evaluate(policy, episodes=3, seed=2, dense=True, progress=False)
    assert run.dense_returns is not None
    assert list(dense.returns) == run.dense_returns.tolist()
    one = runner.evaluate(policy, Scripted(), 1, progress=False)
    assert one.std is one.ci95 is None


returns = st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=12)


@given(returns)
def test_intervals_are_students(values: list[float]) -> None:
    from scipy import stats

    found = summary.returns(values)
    assert found["mean"] == pytest.approx(np.mean(values), abs=1e-9)
    assert found["std"] == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    if found["std"] > 1e-6:
        low, high = stats.t.interval(0.95, len(values) - 1, found["mean"], stats.sem(values))
        assert found["ci95"] == pytest.approx([low, high], rel=1e-9, abs=1e-9)


@given(
    st.lists(st.tuples(st.floats(-100, 100), st.floats(50, 100), st.floats(-100, 40)), min_size=2)
)
def test_the_relative_loss_is_paired(rows: list[tuple[float, float, float]]) -> None:
    event, dense, random = (list(column) for column in zip(*rows, strict=True))
    found = summary.relative_loss(event, dense, random)
    assert found is not None
    advantage = np.mean(dense) - np.mean(random)
    assert found["mean"] == pytest.approx(
        (np.mean(dense) - np.mean(event)) / advantage, rel=1e-9, abs=1e-9
    )
    differences = (np.array(dense) - np.array(event)) / advantage
    assert found["ci95"] == pytest.approx(summary.t_interval(differences.tolist()), abs=1e-9)


def test_no_relative_loss_without_an_advantage() -> None:
    assert summary.relative_loss([1.0], [5.0], [5.0]) is None
    assert summary.relative_loss([1.0], [5.0], [6.0]) is None
    assert summary.relative_loss([], [], []) is None
    assert summary.relative_loss([9.0], [10.0], [0.0]) == {"mean": 0.1, "ci95": None}
    # Only whole triples count.
    assert summary.relative_loss([9.0, 8.0], [10.0], [0.0, 1.0]) == {"mean": 0.1, "ci95": None}


def test_no_episode_no_mean() -> None:
    assert summary.returns([]) == {"mean": None, "std": None, "ci95": None, "per_episode": []}
    assert summary.returns([3.0])["ci95"] is None


def test_a_recorder_of_the_users_own_may_be_given() -> None:
    recorder = EventRecorder()
    run = scripted(1, hooks=[recorder])
    assert run.events is not None
    np.testing.assert_array_equal(recorder.to_arrays()["value"], run.events["value"])


def test_wrapped_environments_keep_their_name() -> None:
    env = gym.make("CartPole-v1")
    run = runner.run(cartpole_policy(), env, episodes=1, progress=False)
    env.close()
    assert run.data["env"] == "CartPole-v1"


def test_the_documented_example_is_as_the_schema_says() -> None:
    page = (ROOT / "docs" / "run-json.md").read_text(encoding="utf-8")
    example = json.loads(page.partition("```json\n")[2].partition("```")[0])
    validate(example)
    run = runner.run(
        cartpole_policy(0.02), episodes=2, threshold_scale=1.5, devices=["loihi"], progress=False
    )
    assert example.keys() == run.data.keys()
    assert example["total"] == pytest.approx(run.total, rel=1e-2)
    fields = json.loads(SCHEMA.read_text(encoding="utf-8"))["properties"]
    assert [name for name in fields if f"`{name}`" not in page] == []
