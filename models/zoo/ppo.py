"""Proximal policy optimisation of a NatureCNN, for one core of a CPU, or for a GPU.

The clipped objective of Schulman et al. 2017 (arXiv 1707.06347) with generalised advantages
(arXiv 1506.02438), few epochs a batch, forward and backward passes in bfloat16 where asked for;
weights, heads, losses and the optimiser are float32. Pictures stay bytes, which bfloat16 holds
exactly: the factor 1 / 255 goes into the first layer's weights.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import InputError
from eventsim.models.reinforce import advantages as estimates

Array = NDArray[Any]
Float = NDArray[np.float32]

_BYTE = 1.0 / 255.0
#: Weight of the squared error of places, which are between -1 and 1.
PLACING = 4.0
#: Part of the average of weights that a step leaves as it is.
AVERAGING = 0.995


@dataclass(frozen=True)
class Settings:
    """What a training can vary; the defaults are those that learn most in a CPU hour."""

    n_envs: int = 32
    horizon: int = 64
    epochs: int = 2
    minibatch: int = 256
    learning_rate: float = 5e-4
    gamma: float = 0.99
    trace: float = 0.95
    clip: float = 0.1
    entropy: float = 0.01
    value: float = 0.5
    max_norm: float = 0.5
    bfloat16: bool = True


@dataclass(frozen=True, eq=False)
class Batch:
    """Steps of all environments, T of N.

    Attributes
    ----------
    observations : uint8 array of shape (T, N, 4, 84, 84)
    actions : int64 array of shape (T, N)
    rewards, values, log_probabilities : float32 arrays of shape (T, N)
    ends : bool array of shape (T, N)
        Whether what follows the step belongs to another life or episode.
    last_values : float32 array of shape (N,)
        Of the observations behind the last step.
    """

    observations: NDArray[np.uint8]
    actions: NDArray[np.int64]
    rewards: Float
    values: Float
    log_probabilities: Float
    ends: NDArray[np.bool_]
    last_values: Float


def advantages(batch: Batch, gamma: float, trace: float) -> Float:
    """Generalised advantage estimates, shape (T, N)."""
    return estimates(
        batch.rewards.T, batch.values.T, batch.last_values, batch.ends.T, gamma, trace
    ).T


class Learner:
    """A NatureCNN with a head for the actions and one for the value, and what trains them.

    Parameters
    ----------
    n_actions : int
    seed : int
        Of the weights, the draws of actions and the order of minibatches.
    settings : Settings
    device : str, optional
        Of torch, where it learns.

    Raises
    ------
    InputError
        If torch finds no such device.
    """

    def __init__(self, n_actions: int, seed: int, settings: Settings, device: str = "cpu") -> None:
        import torch
        from torch import nn

        self.settings = settings
        self._device = _device_of(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.trunk = nn.Sequential(
                *(nn.Conv2d(4, 32, 8, 4), nn.ReLU()),
                *(nn.Conv2d(32, 64, 4, 2), nn.ReLU()),
                *(nn.Conv2d(64, 64, 3), nn.ReLU()),
                *(nn.Flatten(), nn.Linear(3136, 512), nn.ReLU()),
            )
            self.actor, self.critic = nn.Linear(512, n_actions), nn.Linear(512, 1)
            for layer in (*self.trunk, self.actor, self.critic):
                if hasattr(layer, "weight"):
                    gain = {self.actor: 0.01, self.critic: 1.0}.get(layer, 2.0**0.5)
                    nn.init.orthogonal_(layer.weight, gain)
                    nn.init.zeros_(layer.bias)
        for part in (self.trunk, self.actor, self.critic):
            part.to(self._device)
        self._parameters = [
            p for part in (self.trunk, self.actor, self.critic) for p in part.parameters()
        ]
        self._optimizer = torch.optim.Adam(
            self._parameters, settings.learning_rate, eps=1e-5, fused=True
        )
        self._generator = torch.Generator(self._device).manual_seed(seed)
        self._placing: Any = None  # a head, and what trains it
        self._centre = 0.0
        self._average: tuple[int, list[Any]] = (0, [])

    @property
    def module(self) -> Any:
        """What acts, as a ``torch.nn.Sequential`` of pictures that are divided by 255."""
        from torch import nn

        first = copy.deepcopy(self.trunk[0])
        first.bias.data = self._first_bias().detach()
        return copy.deepcopy(nn.Sequential(first, *self.trunk[1:], self.actor)).cpu()

    def centre(self, level: float) -> None:
        """Count brightness from a level on, which changes no output.

        A background that is far from 0 is what all first weights have in common, and what they
        then learn of first.

        Parameters
        ----------
        level : float
            As a share of 255.
        """
        import torch

        first = self.trunk[0]
        with torch.no_grad():
            first.bias += (level - self._centre) * first.weight.sum((1, 2, 3))
        self._centre = level

    def settle(self) -> None:
        """Take the average of the weights that `imitate` went through since the last call.

        Steps of one size never come to rest; their average does (Polyak and Juditsky 1992).
        """
        import torch

        count, average = self._average
        if count:
            with torch.no_grad():
                for p, mean in zip(self._parameters, average, strict=True):
                    p.copy_(mean)
        self._average = (0, [])

    def act(self, observations: NDArray[np.uint8]) -> tuple[Array, Float, Float]:
        """Draw actions for B observations.

        Returns
        -------
        actions, their log probabilities, values of the observations; each of shape (B,)
        """
        import torch

        with torch.inference_mode():
            logits, values = self._forward(self._sent(observations))
            log_p = torch.log_softmax(logits, 1)
            actions = torch.multinomial(log_p.exp(), 1, generator=self._generator)
            chosen = log_p.gather(1, actions)[:, 0]
        return actions[:, 0].cpu().numpy(), chosen.cpu().numpy(), values.cpu().numpy()

    def likeliest(self, observations: NDArray[np.uint8]) -> Array:
        """The likeliest actions for B observations."""
        import torch

        with torch.inference_mode():
            logits, _ = self._forward(self._sent(observations))
            actions: Array = logits.argmax(1).cpu().numpy()
        return actions

    def values(self, observations: NDArray[np.uint8]) -> Float:
        """Values of B observations."""
        import torch

        with torch.inference_mode():
            values: Float = self._forward(self._sent(observations))[1].cpu().numpy()
        return values

    def update(self, batch: Batch, learning_rate: float) -> dict[str, float]:
        """Learn from a batch; returns means of the losses and of the entropy."""
        import torch

        s = self.settings
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        gains = advantages(batch, s.gamma, s.trace)
        flat = [
            self._sent(np.ascontiguousarray(x).reshape(batch.actions.size, *x.shape[2:]))
            for x in (
                batch.observations,
                batch.actions,
                batch.log_probabilities,
                gains,
                gains + batch.values,
            )
        ]
        sums = torch.zeros(3, dtype=torch.float64, device=self._device)
        n_parts = 0
        for _ in range(s.epochs):
            order = torch.randperm(
                batch.actions.size, generator=self._generator, device=self._device
            )
            for part in order.split(s.minibatch):
                pictures, actions, before, gain, target = (x[part] for x in flat)
                logits, values = self._forward(pictures)
                log_p = torch.log_softmax(logits, 1)
                ratio = (log_p.gather(1, actions[:, None])[:, 0] - before).exp()
                gain = (gain - gain.mean()) / (gain.std() + 1e-8)
                clipped = ratio.clamp(1.0 - s.clip, 1.0 + s.clip)
                policy_loss = -torch.minimum(gain * ratio, gain * clipped).mean()
                value_loss = (values - target).square().mean()
                entropy = -(log_p.exp() * log_p).sum(1).mean()
                self._optimizer.zero_grad()
                (policy_loss + s.value * value_loss - s.entropy * entropy).backward()
                torch.nn.utils.clip_grad_norm_(self._parameters, s.max_norm)
                self._optimizer.step()
                # Read once in the end: a GPU would wait for each.
                sums += torch.stack((policy_loss, value_loss, entropy)).detach()
                n_parts += 1
        names = ("policy_loss", "value_loss", "entropy")
        return dict(zip(names, (sums / n_parts).tolist(), strict=True))

    def imitate(
        self,
        pictures: NDArray[np.uint8],
        right: Float,
        to_come: Float,
        seen: Float,
        learning_rate: float,
    ) -> tuple[float, float, float]:
        """One step towards another's actions, the rewards to come and what it saw where not NaN.

        Parameters
        ----------
        pictures : uint8 array of shape (B, 4, 84, 84)
        right : float32 array of shape (B, n_actions)
            The distribution of actions to be learned.
        to_come : float32 array of shape (B,)
        seen : float32 array of shape (B, number of places)
        learning_rate : float

        Returns
        -------
        The cross-entropy, the share of the likeliest actions that are the most right, and the mean
        squared error of what was seen.
        """
        import torch

        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        if self._placing is None:
            head = torch.nn.Linear(self.actor.in_features, seen.shape[1], device=self._device)
            torch.nn.init.zeros_(head.weight)
            torch.nn.init.zeros_(head.bias)
            self._placing = head, torch.optim.Adam(head.parameters(), eps=1e-5)
        head, optimizer = self._placing
        wanted, target, places = map(self._sent, (right, to_come, seen))
        features = self._features(self._sent(pictures))
        logits, values = self.actor(features), self.critic(features)[:, 0]
        loss = torch.nn.functional.cross_entropy(logits, wanted)
        total, errors = loss, []
        for part, found, aim in (
            (self.settings.value, values, target),
            (PLACING, head(features), places),
        ):
            known = ~torch.isnan(aim)
            errors.append((found - aim)[known].square().sum() / known.sum().clamp(min=1))
            total = total + part * errors[-1]
        self._optimizer.zero_grad()
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, self.settings.max_norm)
        self._optimizer.step()
        optimizer.step()
        count, average = self._average
        average = average or [p.detach().clone() for p in self._parameters]
        with torch.no_grad():
            for mean, p in zip(average, self._parameters, strict=True):
                mean.lerp_(p, 1.0 - min(AVERAGING, count / (count + 10.0)))
        self._average = (count + 1, average)
        likeliest = wanted.gather(1, logits.detach().argmax(1, keepdim=True))[:, 0]
        agreement = (likeliest >= wanted.max(1).values - 1e-6).float().mean()
        return float(loss.detach()), float(agreement), float(errors[1].detach())

    def state(self) -> dict[str, Any]:
        """Tensors from which `load` goes on: weights, the optimiser's moments, the generator.

        Another kind of device has another generator, which begins anew there.
        """
        import torch

        state: dict[str, Any] = {
            self._generator_key: self._generator.get_state(),
            "centre": torch.tensor(self._centre, dtype=torch.float64),
        }
        for i, p in enumerate(self._parameters):
            state[f"weight/{i}"] = p.detach().cpu().clone()
            for name, value in self._optimizer.state.get(p, {}).items():
                state[f"{name}/{i}"] = value.cpu().clone()
        return state

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave; KeyError or RuntimeError if it is of another network."""
        import torch

        if self._generator_key in state:
            self._generator.set_state(state[self._generator_key])
        elif not any(key.startswith("generator") for key in state):
            raise KeyError(self._generator_key)
        self._centre = float(state.get("centre", 0.0))  # older checkpoints have none
        for i, p in enumerate(self._parameters):
            with torch.no_grad():
                p.copy_(state[f"weight/{i}"])
            moments = {
                name: state[f"{name}/{i}"].to(self._device, copy=True)
                for name in ("step", "exp_avg", "exp_avg_sq")
                if f"{name}/{i}" in state
            }
            if moments:
                self._optimizer.state[p] = moments

    @property
    def _generator_key(self) -> str:
        kind = self._device.type
        return "generator" if kind == "cpu" else f"generator/{kind}"

    def _sent(self, values: Array) -> Any:
        """An array where the network is."""
        import torch

        return torch.from_numpy(values).to(self._device)

    def _forward(self, pictures: Any) -> tuple[Any, Any]:
        """Logits of shape (B, n_actions) and values of shape (B,), float32."""
        features = self._features(pictures)
        return self.actor(features), self.critic(features)[:, 0]

    def _features(self, pictures: Any) -> Any:
        """What the trunk makes of pictures: float32, of shape (B, 512)."""
        import torch

        half = self.settings.bfloat16
        first = self.trunk[0]
        with torch.autocast(self._device.type, torch.bfloat16, enabled=half):
            x = pictures.to(torch.bfloat16 if half else torch.float32)
            bias = self._first_bias()
            x = torch.nn.functional.conv2d(x, first.weight * _BYTE, bias, first.stride)
            return self.trunk[1:](x).float()

    def _first_bias(self) -> Any:
        """Bias of the first layer for brightness that is counted from 0 on."""
        first = self.trunk[0]
        return first.bias - self._centre * first.weight.sum((1, 2, 3))


def _device_of(name: str) -> Any:
    """Torch's device of a name; InputError if it cannot be used."""
    import torch

    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
        torch.Generator(device)
    except (RuntimeError, AssertionError, ImportError) as error:  # a build without CUDA asserts
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"is {name!r}, which torch cannot use ({reason}); use cpu", field="device"
        ) from error
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
    return device
