"""Fine-tuning by reinforcement learning: masks, thresholds in the loop, and short trainings."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eventsim
from eventsim.errors import FileFormatError, InputError, SimulationError, UnsupportedError
from eventsim.models.decoders import Argmax, SquashBox
from eventsim.models.encoders import BoxSpec, Encoder
from eventsim.models.finetune import (
    HeldInputs,
    Look,
    Settings,
    finetune,
    layers,
    masks_of,
    polynomial,
    with_layers,
)
from eventsim.models.policy import Policy
from eventsim.models.pruning import connection_sparsity
from eventsim.network import Network
from tests.fake_search import ENV, teacher


def chain(
    rng: np.random.Generator, sizes: tuple[int, ...], threshold: float, activation: str = "tanh"
) -> Network:
    weights = [rng.normal(0.0, 0.7, (m, n)) for n, m in itertools.pairwise(sizes)]
    for w in weights:
        w[rng.random(w.shape) < 0.4] = 0.0
    biases = [rng.normal(0.0, 0.2, m) for m in sizes[1:]]
    return Network.from_arrays(weights, biases, activation, threshold)


def pendulum(rng: np.random.Generator) -> Policy:
    decoder = SquashBox(-2.0, 2.0, (1,))
    return Policy(
        Encoder(BoxSpec((3,))),
        chain(rng, (3, 6, 5, 1), 0.05, "relu"),
        decoder,
        {"env_id": "Pendulum-v1", "algorithm": "SAC"},
    )


def pole() -> Policy:
    network = teacher().network.with_thresholds(0.02)
    return teacher().with_network(network).with_metadata(algorithm="PPO", env_id=ENV)


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5])
def test_what_is_observed_tells_what_the_network_sends(
    threshold: float, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch", reason="training needs the extra 'train'")
    from eventsim.models.finetune_sb3 import Actor

    network = chain(rng, (4, 6, 5, 2), threshold)
    simulator = eventsim.Simulator(network)
    actor = Actor(network)
    held = HeldInputs(actor.live(), network["input"].parameter("threshold").astype(np.float32))
    module = actor.module(whole=True)
    for _ in range(2):
        simulator.reset()
        held.reset()
        for x in rng.normal(0.0, 0.3, (40, 4)).cumsum(axis=0):
            expected = simulator.step(x)
            observed = torch.from_numpy(held.observe(x))[None]
            np.testing.assert_allclose(
                module(observed).detach().numpy()[0], expected, rtol=0.0, atol=2e-5
            )


def test_the_gradient_passes_straight_through_the_hold(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="training needs the extra 'train'")
    from eventsim.models.finetune_sb3 import Actor

    actor = Actor(chain(rng, (3, 4, 2), 0.2))
    module = actor.module(whole=True)
    observation = torch.from_numpy(rng.normal(size=(5, 7)).astype(np.float32))
    module(observation).sum().backward()
    hidden = torch.tanh(actor.linears[0](observation[:, :3])) + observation[:, 3:]
    expected = hidden.sum(dim=0).detach().numpy()
    for row in actor.linears[1].weight.grad.numpy():
        np.testing.assert_allclose(row, expected, rtol=1e-5)
    assert actor.linears[0].weight.grad.abs().sum() > 0.0


def test_the_schedule_is_that_of_zhu_and_gupta() -> None:
    assert polynomial(0.5, 0.9, -1.0) == 0.5
    assert polynomial(0.5, 0.9, 0.0) == 0.5
    assert polynomial(0.5, 0.9, 0.5) == pytest.approx(0.9 - 0.4 / 8)
    assert polynomial(0.5, 0.9, 1.0) == 0.9
    assert polynomial(0.5, 0.9, 2.0) == 0.9


def test_layers_there_and_back(rng: np.random.Generator) -> None:
    network = chain(rng, (4, 6, 2), 0.1)
    parts = layers(network)
    again = with_layers(network, [p.weights for p in parts], [p.bias for p in parts])
    x = rng.normal(size=(20, 4))
    np.testing.assert_allclose(
        eventsim.Simulator(again).run(x), eventsim.Simulator(network).run(x), atol=1e-5
    )
    assert again.n_synapses == network.n_synapses
    masks = masks_of(network, 0.75, 0.75)
    assert sum(int(m.sum()) for m in masks) == round(0.25 * (24 + 12))
    assert [m.tolist() for m in masks_of(network, 0.0, 0.0)] == [
        (p.weights != 0.0).tolist() for p in parts
    ]


def run(policy: Policy, steps: int, **options: Any) -> tuple[Policy, list[Look]]:
    pytest.importorskip("stable_baselines3", reason="training needs the extra 'train'")
    looks: list[Look] = []
    settings = Settings(steps=steps, looks=2, look_episodes=2, n_envs=2, **options)
    tuned = finetune(policy, settings=settings, on_look=lambda look, _: looks.append(look))
    return tuned, looks


def same_zeros(before: Policy, after: Policy) -> bool:
    pairs = zip(before.network.projections, after.network.projections, strict=True)
    return all(not b.weights.to_dense()[a.weights.to_dense() == 0.0].any() for a, b in pairs)


def weights(policy: Policy) -> list[np.ndarray]:
    return [q.weights.to_dense() for q in policy.network.projections]


def test_ppo_keeps_masks_and_thresholds() -> None:
    before = pole()
    seen: list[Policy] = []
    pytest.importorskip("stable_baselines3", reason="training needs the extra 'train'")
    settings = Settings(steps=300, looks=2, look_episodes=2, n_envs=2, learning_rate=3e-3)
    after = finetune(before, settings=settings, on_look=lambda _, policy: seen.append(policy))
    assert len(seen) >= 3
    # It learned, and nothing that was pruned came back.
    assert any((a != b).any() for a, b in zip(weights(before), weights(seen[-1]), strict=True))
    for one in (*seen, after):
        assert same_zeros(before, one)
        for name in ("input", "hidden1"):
            assert (one.network[name].parameter("threshold") == 0.02).all()
        assert one.network.dense_macs() == before.network.dense_macs()
    assert after.metadata["finetune"]["algorithm"] == "PPO"
    assert after.metadata["finetune"]["looks"][0][:2] == [0, connection_sparsity(before.network)]


def test_gradual_pruning_ends_where_it_should(tmp_path: Path) -> None:
    before = pole()
    after, looks = run(before, 300, sparsity=0.8, prunings=3)
    assert connection_sparsity(after.network) == pytest.approx(0.8, abs=0.02)
    assert not looks[0].kept
    assert looks[0].sparsity < looks[1].sparsity <= looks[-1].sparsity
    assert any(look.kept for look in looks)
    assert same_zeros(before, after)
    after.save(tmp_path / "tuned.safetensors")
    assert len(eventsim.evaluate(tmp_path / "tuned.safetensors", episodes=1).returns) == 1


def test_two_trainings_from_one_seed_are_equal() -> None:
    first, second = (run(pole(), 200)[0] for _ in range(2))
    for a, b in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["SAC", "TD3"])
def test_off_policy_actors(algorithm: str, rng: np.random.Generator) -> None:
    before = pendulum(rng)
    seen: list[Policy] = []
    pytest.importorskip("stable_baselines3", reason="training needs the extra 'train'")
    settings = Settings(
        steps=120,
        looks=3,
        look_episodes=1,
        warmup=0.4,
        learning_rate=1e-2,
        arguments={"learning_starts": 20, "batch_size": 32},
    )
    finetune(
        before,
        settings=settings,
        algorithm=algorithm,
        on_look=lambda _, policy: seen.append(policy),
    )
    # The actor waits for its critic, then learns.
    single = [w.astype(np.float32) for w in weights(before)]
    assert all((a == b).all() for a, b in zip(single, weights(seen[1]), strict=True))
    assert any((a != b).any() for a, b in zip(single, weights(seen[-1]), strict=True))
    assert same_zeros(before, seen[-1])


@pytest.mark.slow
def test_q_networks() -> None:
    before = pole()
    pytest.importorskip("stable_baselines3", reason="training needs the extra 'train'")
    seen: list[Policy] = []
    settings = Settings(
        steps=200,
        looks=2,
        look_episodes=1,
        learning_rate=1e-2,
        arguments={"learning_starts": 20, "batch_size": 16},
    )
    finetune(
        before, settings=settings, algorithm="DQN", on_look=lambda _, policy: seen.append(policy)
    )
    assert any((a != b).any() for a, b in zip(weights(before), weights(seen[-1]), strict=True))
    assert same_zeros(before, seen[-1])


# A critic taken over.


def sb3_agent(kind: str, folder: Path) -> tuple[Any, Path]:
    sb3 = pytest.importorskip("stable_baselines3", reason="training needs the extra 'train'")
    if kind == "TQC":
        sb3 = pytest.importorskip("sb3_contrib", reason="training needs the extra 'train'")
    arguments: dict[str, Any] = {"policy_kwargs": {"net_arch": [6, 5]}, "gamma": 0.97}
    if kind in ("SAC", "TQC"):
        arguments["ent_coef"] = "auto_0.25"
    agent = getattr(sb3, kind)("MlpPolicy", "Pendulum-v1", buffer_size=10, seed=3, **arguments)
    path = folder / f"{kind}.zip"
    agent.save(path)
    return agent, path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["SAC", "TQC", "TD3", "DDPG"])
def test_a_critic_taken_over_says_what_it_said(
    kind: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch", reason="training needs the extra 'train'")
    from eventsim.models.finetune_sb3 import see_inputs, take_critic
    from eventsim.models.importers.sb3_critic import read_critic

    agent, path = sb3_agent(kind, tmp_path)
    critic = read_critic(path)
    assert critic.n_inputs == 4
    assert critic.hidden == [6, 5]
    assert critic.gamma == 0.97
    assert critic.entropy == (pytest.approx(0.25) if kind in ("SAC", "TQC") else None)
    observation = torch.from_numpy(rng.normal(size=(7, 3)).astype(np.float32))
    action = torch.from_numpy(rng.uniform(-1.0, 1.0, (7, 1)).astype(np.float32))
    with torch.no_grad():
        if kind == "TQC":
            said = agent.critic(observation, action).mean(dim=2).T
        else:
            said = torch.stack(agent.critic(observation, action))[:, :, 0]
    # The new critic sees what two hidden neurons hold back, too.
    own = torch.nn.Module()
    own.q_networks = [
        torch.nn.Sequential(
            torch.nn.Linear(6, 6),
            torch.nn.ReLU(),
            torch.nn.Linear(6, 5),
            torch.nn.ReLU(),
            torch.nn.Linear(5, 1),
        )
        for _ in critic.networks
    ]
    see_inputs(own, 3, 1)
    take_critic(own, critic)
    held = torch.from_numpy(rng.normal(size=(7, 2)).astype(np.float32))
    with torch.no_grad():
        x = torch.cat([observation, held, action], dim=1)
        found = torch.stack([network(x)[:, 0] for network in own.q_networks])
    torch.testing.assert_close(found, said, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["SAC", "TD3"])
def test_with_a_critic_the_actor_does_not_wait(
    algorithm: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    _, path = sb3_agent(algorithm, tmp_path)
    before = pendulum(rng)
    seen: list[Policy] = []
    settings = Settings(
        steps=90,
        looks=3,
        look_episodes=1,
        warmup=0.9,
        learning_rate=1e-2,
        critic=path,
        arguments={"learning_starts": 10, "batch_size": 16},
    )
    after = finetune(
        before,
        settings=settings,
        algorithm=algorithm,
        on_look=lambda _, policy: seen.append(policy),
    )
    single = [w.astype(np.float32) for w in weights(before)]
    assert any((a != b).any() for a, b in zip(single, weights(seen[1]), strict=True))
    assert after.metadata["finetune"]["critic"] == path.name


@pytest.mark.slow
def test_a_critic_that_does_not_fit(tmp_path: Path, rng: np.random.Generator) -> None:
    _, path = sb3_agent("SAC", tmp_path)
    with pytest.raises(InputError, match=r"critic.*PPO has no critic"):
        finetune(pole(), settings=Settings(critic=path))
    network = chain(rng, (3, 6, 2), 0.0, "relu")
    wide = Policy(
        Encoder(BoxSpec((3,))),
        network,
        SquashBox(-2.0, 2.0, (2,)),
        {"env_id": "Pendulum-v1", "algorithm": "SAC"},
    )
    from eventsim.models.finetune import _critic

    with pytest.raises(InputError, match=r"SAC\.zip.*takes 4 numbers.*has 5"):
        _critic(path, "SAC", wide)
    with pytest.raises(FileFormatError, match=r"does not exist"):
        _critic(tmp_path / "gone.zip", "SAC", pendulum(rng))
    sb3 = pytest.importorskip("stable_baselines3", reason="training needs the extra 'train'")
    sb3.PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8).save(tmp_path / "ppo.zip")
    with pytest.raises(UnsupportedError, match=r"of PPO.*critics come from SAC"):
        _critic(tmp_path / "ppo.zip", "SAC", pendulum(rng))


# Bad input.


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"steps": 0}, "'steps'.*at least 1"),
        ({"learning_rate": 0.0}, "'learning_rate'.*above 0"),
        ({"noise": float("nan")}, "'noise'.*above 0"),
        ({"sparsity": 1.0}, r"'sparsity'.*\[0, 1\)"),
        ({"prune_begin": 0.9, "prune_end": 0.2}, "'prune_begin'.*after prune_end"),
        ({"warmup": 1.0}, "'warmup'"),
    ],
)
def test_settings_out_of_range(changed: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        Settings(**changed)


def test_what_cannot_be_trained_is_said(rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="name one by env"):
        finetune(pole().with_metadata(env_id=None))
    with pytest.raises(InputError, match=r"'algorithm'.*give one of DQN, PPO, SAC, TD3"):
        finetune(pole().with_metadata(algorithm=None))
    with pytest.raises(UnsupportedError, match=r"'algorithm'.*is REINFORCE"):
        finetune(pole(), algorithm="REINFORCE")
    with pytest.raises(UnsupportedError, match="SAC, which has no actor for actions by argmax"):
        finetune(pole(), algorithm="SAC")
    with pytest.raises(UnsupportedError, match="PPO, which has no actor for actions by squash_box"):
        finetune(pendulum(rng), algorithm="PPO")
    with pytest.raises(InputError, match="observations"):
        finetune(pole(), "Pendulum-v1")
    with pytest.raises(InputError, match=r"'sparsity'.*allow no more than"):
        finetune(pole(), settings=Settings(sparsity=0.97))
    squashed = Network.from_arrays([np.ones((2, 4))], output_activation="tanh")
    with pytest.raises(UnsupportedError, match="outputs an activation"):
        finetune(Policy(Encoder(BoxSpec((4,))), squashed, Argmax(2), pole().metadata))


def test_weights_that_are_no_longer_finite(rng: np.random.Generator) -> None:
    network = chain(rng, (4, 6, 2), 0.1)
    parts = layers(network)
    bad = [p.weights.copy() for p in parts]
    bad[1][0, 0] = np.nan
    with pytest.raises(SimulationError, match=r"'output' are no longer finite.*learning rate"):
        with_layers(network, bad, [p.bias for p in parts])
