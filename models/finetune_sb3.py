"""The half of fine-tuning that speaks to torch and Stable-Baselines3."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import UnsupportedError
from eventsim.models.finetune import (
    TRAINING_SEED,
    HeldInputs,
    Layer,
    Settings,
    layers,
    masks_of,
    polynomial,
    with_layers,
)
from eventsim.models.importers.sb3_critic import Critic
from eventsim.models.policy import Policy
from eventsim.models.pruning import connection_sparsity
from eventsim.network import Network

if TYPE_CHECKING:
    import torch

_SQUASHING = ("SAC", "TD3")
#: Copies of the environment for PPO, if nothing else is asked for.
_PPO_ENVS = 4


def train(
    kind: str,
    policy: Policy,
    make: Callable[[], Any],
    settings: Settings,
    final: float,
    seed: int,
    look: Callable[[int, Network], None],
    critic: Critic | None = None,
) -> None:
    """Train the policy's network by one of the algorithms; `look` gets what comes of it.

    Parameters
    ----------
    kind : {"PPO", "SAC", "TD3", "DQN"}
    policy : Policy
    make : callable
        Makes the environment.
    settings : Settings
    final : float
        Sparsity at the end.
    seed : int
    look : callable
        Called with the environment steps so far and the network, `settings.looks` times.
    critic : Critic, optional
        That SAC or TD3 starts from.
    """
    import torch

    torch.manual_seed(seed)
    actor = Actor(policy.network)
    model = _model(kind, policy, make, settings, actor, seed, critic)
    start = connection_sparsity(policy.network)
    every = max(settings.steps // settings.looks, 1)
    cut_every = max(
        int(settings.steps * (settings.prune_end - settings.prune_begin)) // settings.prunings, 1
    )
    due = {"look": every, "cut": int(settings.steps * settings.prune_begin)}
    waits = int(settings.steps * settings.warmup) if kind != "PPO" and critic is None else 0
    actor.frozen = waits > 0

    def step(*_: Any) -> bool:
        now = int(model.num_timesteps)
        actor.frozen = now < waits
        if final > start and now >= due["cut"]:
            due["cut"] = now + cut_every
            length = max(settings.prune_end - settings.prune_begin, 1e-9)
            progress = (now / settings.steps - settings.prune_begin) / length
            network = actor.network(policy.network)
            actor.mask(masks_of(network, polynomial(start, final, progress), final))
        if now >= due["look"]:
            due["look"] = now + every
            look(now, actor.network(policy.network))
        return True

    try:
        model.learn(settings.steps, callback=step)
        if final > start:
            actor.mask(masks_of(actor.network(policy.network), final, final))
        look(int(model.num_timesteps), actor.network(policy.network))
    finally:
        model.get_env().close()


class Actor:
    """The policy's network as torch modules, whose zero weights stay zero.

    Parameters
    ----------
    network : Network
        A chain.

    Attributes
    ----------
    linears : list of torch.nn.Linear
    frozen : bool
        Whether steps of an optimiser are undone, back to the weights of the start.
    """

    def __init__(self, network: Network) -> None:
        import torch

        self.layers = layers(network)
        self.frozen = False
        self.linears = []
        self.masks = []
        for layer in self.layers:
            n_out, n_in = layer.weights.shape
            linear = torch.nn.Linear(n_in, n_out)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(layer.weights))
                linear.bias.copy_(torch.from_numpy(layer.bias))
            self.linears.append(linear)
            self.masks.append(torch.from_numpy((layer.weights != 0.0).astype(np.float32)))
        self._start = [p.detach().clone() for p in self._flat()]

    def live(self) -> list[Layer]:
        """Layers whose arrays are the ones being trained."""
        return [
            replace(
                layer, weights=linear.weight.detach().numpy(), bias=linear.bias.detach().numpy()
            )
            for layer, linear in zip(self.layers, self.linears, strict=True)
        ]

    def network(self, like: Network) -> Network:
        """The network as it is now."""
        live = self.live()
        return with_layers(
            like, [layer.weights.copy() for layer in live], [layer.bias.copy() for layer in live]
        )

    def mask(self, masks: list[NDArray[np.bool_]]) -> None:
        """Cut weights for good."""
        import torch

        for own, mask in zip(self.masks, masks, strict=True):
            own.mul_(torch.from_numpy(mask.astype(np.float32)))
        self.enforce()

    def enforce(self, *_: Any) -> None:
        """Apply the masks; as a hook after every step of an optimiser."""
        import torch

        with torch.no_grad():
            if self.frozen:
                for parameter, kept in zip(self._flat(), self._start, strict=True):
                    parameter.copy_(kept)
            for linear, mask in zip(self.linears, self.masks, strict=True):
                linear.weight.mul_(mask)

    def _flat(self) -> list[Any]:
        return [p for linear in self.linears for p in (linear.weight, linear.bias)]

    def module(self, *, whole: bool, squash: bool = False) -> torch.nn.Module:
        """Return what maps an observation to the last hidden layer, or to the outputs.

        Parameters
        ----------
        whole : bool
            With the output layer.
        squash : bool
            With a tanh behind it.
        """
        return _module(self, whole, squash)


def _module(actor: Actor, whole: bool, squash: bool) -> torch.nn.Module:
    import torch

    class Held(torch.nn.Module):
        """Layers that send their activation and the error that the observation tells."""

        def __init__(self) -> None:
            super().__init__()
            self.linears = torch.nn.ModuleList(actor.linears if whole else actor.linears[:-1])
            hidden = actor.linears[:-1]
            self._sizes = [actor.linears[0].in_features, *(one.out_features for one in hidden)]
            self._functions = [_function(layer.activation) for layer in actor.layers]

        def forward(self, observation: torch.Tensor) -> torch.Tensor:
            value, *errors = observation.split(self._sizes, dim=1)
            for k, linear in enumerate(self.linears):
                value = self._functions[k](linear(value))
                if k < len(errors):
                    value = value + errors[k]
            return torch.tanh(value) if squash else value

    return Held()


def _function(activation: Any) -> Callable[[Any], Any]:
    import torch
    from torch.nn import functional as f

    known: dict[str, Callable[[Any], Any]] = {
        "identity": lambda u: u,
        "relu": torch.relu,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "softplus": f.softplus,
        "silu": f.silu,
        "leaky_relu": lambda u: f.leaky_relu(u, activation.alpha),
        "elu": lambda u: f.elu(u, activation.alpha),
    }
    if activation.name not in known:
        raise UnsupportedError(
            f"is {activation.name}; networks of {', '.join(known)} can be trained",
            field="activation",
        )
    return known[activation.name]


def _wrapped(make: Callable[[], Any], policy: Policy, actor: Actor) -> Any:
    """The environment as the actor sees it: encoded, held, and with the hidden layers' errors."""
    import gymnasium as gym

    inputs = [p for p in policy.network.populations if p.is_input]
    threshold = np.concatenate([p.parameter("threshold") for p in inputs]).astype(np.float32)

    class Seen(gym.Wrapper[Any, Any, Any, Any]):
        def __init__(self) -> None:
            super().__init__(make())
            self._held = HeldInputs(actor.live(), threshold)
            self._t = 0
            self.observation_space = gym.spaces.Box(-np.inf, np.inf, (self._held.size,), np.float32)

        def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
            observation, info = self.env.reset(**options)
            self._t = 0
            self._held.reset()
            return self._see(observation), info

        def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
            observation, reward, terminated, truncated, info = self.env.step(action)
            self._t += 1
            return self._see(observation), reward, terminated, truncated, info

        def _see(self, observation: Any) -> NDArray[np.float32]:
            return self._held.observe(policy.encoder.encode(observation, self._t))

    return Seen()


def _model(
    kind: str,
    policy: Policy,
    make: Callable[[], Any],
    settings: Settings,
    actor: Actor,
    seed: int,
    critic: Critic | None,
) -> Any:
    """A Stable-Baselines3 agent with the policy's network as its actor."""
    import stable_baselines3 as sb3
    import torch
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    n_envs = (settings.n_envs or _PPO_ENVS) if kind == "PPO" else 1
    envs: Any = DummyVecEnv([lambda: Monitor(_wrapped(make, policy, actor)) for _ in range(n_envs)])
    hidden = [linear.out_features for linear in actor.linears[:-1]]
    arguments = dict(settings.arguments or {})
    shared = {
        "learning_rate": settings.learning_rate,
        "seed": TRAINING_SEED + 1000 * (seed % 1000),
        "device": "cpu",
        "verbose": 0,
    }
    if kind == "PPO":
        envs = VecNormalize(envs, norm_obs=False, norm_reward=True)
        # In whole batches.
        rollout = max(min(2048, settings.steps) // n_envs // 64 * 64, 64)
        defaults: dict[str, Any] = {"n_steps": rollout, "batch_size": 64}
        log_std = float(np.log(settings.noise))
        model: Any = sb3.PPO(
            "MlpPolicy",
            envs,
            policy_kwargs={
                "net_arch": {"pi": hidden, "vf": [64, 64]},
                "log_std_init": log_std,
                "ortho_init": False,
            },
            **{**defaults, **shared, **arguments},
        )
        own = model.policy
        own.mlp_extractor.policy_net = actor.module(whole=False)
        own.action_net = actor.linears[-1]
        _renew(own, own.parameters(), settings, actor)
        return model
    squash = kind in _SQUASHING
    # Updates on a handful of steps would spoil the critic that was taken over.
    fills = min(1000 if critic is None else 20_000, settings.steps // 10)
    defaults = {"learning_starts": fills, "batch_size": 256}
    defaults["buffer_size"] = max(min(settings.steps, 1_000_000), 1)
    net_arch: Any = {"pi": hidden, "qf": [256, 256]} if squash else hidden
    extra: dict[str, Any] = {}
    if critic is not None:
        net_arch["qf"] = critic.hidden
        extra["n_critics"] = len(critic.networks)
        if critic.gamma is not None:
            defaults["gamma"] = critic.gamma
        if critic.entropy is not None and kind == "SAC":
            # It goes on adapting, from where the teacher's training had brought it.
            defaults["ent_coef"] = f"auto_{critic.entropy!r}"
    if kind == "TD3":
        from stable_baselines3.common.noise import NormalActionNoise

        size = policy.decoder.size
        defaults["action_noise"] = NormalActionNoise(np.zeros(size), np.full(size, settings.noise))
    elif kind == "DQN":
        # A trained policy need not explore from chance again.
        defaults |= {"exploration_initial_eps": settings.noise, "exploration_final_eps": 0.01}
    model = getattr(sb3, kind)(
        "MlpPolicy",
        envs,
        policy_kwargs={"net_arch": net_arch, **extra},
        **{**defaults, **shared, **arguments},
    )
    if squash:
        for own in (model.critic, model.critic_target):
            see_inputs(own, policy.network.n_inputs, policy.decoder.size)
            if critic is not None:
                take_critic(own, critic)
        model.critic_target.load_state_dict(model.critic.state_dict())
        model.critic.optimizer = torch.optim.Adam(
            model.critic.parameters(), lr=settings.learning_rate
        )
        model._sample_action = partial(_own_action, model)
    if kind == "SAC":
        head = model.actor
        head.latent_pi = actor.module(whole=False)
        head.mu = actor.linears[-1]
        with torch.no_grad():
            head.log_std.weight.zero_()
            head.log_std.bias.fill_(float(np.log(settings.noise)))
        _renew(head, head.parameters(), settings, actor)
    else:
        head = model.actor if kind == "TD3" else model.q_net
        target = model.actor_target if kind == "TD3" else model.q_net_target
        name = "mu" if kind == "TD3" else "q_net"
        setattr(head, name, actor.module(whole=True, squash=squash))
        behind = Actor(policy.network)
        setattr(target, name, behind.module(whole=True, squash=squash))
        owner = head if kind == "TD3" else model.policy
        _renew(owner, head.parameters(), settings, actor)
    return model


def _own_action(model: Any, learning_starts: int, noise: Any = None, n_envs: int = 1) -> Any:
    """Sample an action from the actor also before learning starts: it is no beginner."""
    return type(model)._sample_action(model, 0, noise, n_envs)


def see_inputs(own: Any, n_inputs: int, n_actions: int) -> None:
    """Let a critic of Stable-Baselines3 see the inputs and the action alone.

    What hidden neurons hold back, the rest of the observation, says little about the return, and
    would make the critic's first layer many times as large.
    """
    import torch

    class Seen(torch.nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(n_inputs + n_actions, width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(torch.cat([x[:, :n_inputs], x[:, -n_actions:]], dim=1))

    for network in own.q_networks:
        network[0] = Seen(network[0].out_features)


def take_critic(own: Any, critic: Critic) -> None:
    """Give a critic that sees the inputs the weights of another one."""
    import torch

    with torch.no_grad():
        for network, (weights, biases) in zip(own.q_networks, critic.networks, strict=True):
            linears = [m for m in network.modules() if isinstance(m, torch.nn.Linear)]
            for linear, w, b in zip(linears, weights, biases, strict=True):
                linear.weight.copy_(torch.from_numpy(w))
                linear.bias.copy_(torch.from_numpy(b))


def _renew(owner: Any, parameters: Any, settings: Settings, actor: Actor) -> None:
    """Give an actor an optimiser of its new parameters, with the masks applied after its steps."""
    import torch

    owner.optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate)
    owner.optimizer.register_step_post_hook(actor.enforce)
