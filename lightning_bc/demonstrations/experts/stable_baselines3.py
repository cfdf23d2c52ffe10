"""Actors of stable-baselines3's ``.zip`` files (https://stable-baselines3.readthedocs.io), rebuilt without that package.

Read are SAC, TD3, DDPG, PPO and A2C, and sb3-contrib's TQC, with their MlpPolicy on vectors. The weights are the state dict
``policy.pth``. ``data`` is JSON, in which every object stands twice: pickled, which is not opened, and as text, from which
the activation function, the action bounds and everything that would make it another policy are read. h is the last hidden
layer:

    SAC, TQC    u ~ Normal(mu(h), exp(clip(log_std(h), -20, 2))),    action = scale * tanh(u) + bias
    TD3, DDPG   action = scale * tanh(mu(h)) + bias
    PPO, A2C    u ~ Normal(mu(h), exp(log_std)),    action = clip(u, low, high)

with scale = (high - low) / 2 and bias = (high + low) / 2; the deterministic action is u = mu(h).
"""

import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_bc.demonstrations.experts import vec_normalize
from lightning_bc.demonstrations.experts.layers import fixed_linear
from lightning_bc.environments import EnvironmentSpaces
from lightning_bc.errors import InputError
from lightning_bc.players import Memoryless, Player

ACTIVATIONS: dict[str, type[nn.Module]] = {
    cls.__name__: cls
    for cls in (
        *(nn.ReLU, nn.Tanh, nn.ELU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Mish, nn.SELU, nn.CELU, nn.ReLU6, nn.Sigmoid),
        *(nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid, nn.Tanhshrink),
    )
}
"""Activation functions without weights, by their names in torch.nn; they are made with their defaults, as there."""

POLICY_OPTIONS = {
    *("net_arch", "activation_fn", "log_std_init", "ortho_init", "n_critics", "n_quantiles", "share_features_extractor"),
    *("optimizer_class", "optimizer_kwargs", "normalize_images", "use_expln", "clip_mean", "full_std"),
}
"""What of ``policy_kwargs`` shows in the weights or the activation, or says nothing of actions without gSDE."""

UNUSED = ("critic.", "critic_target.", "actor_target.", "value_net.", "mlp_extractor.value_net.")
"""Beginnings of keys that have no part in actions."""

LOG_STD_RANGE = (-20.0, 2.0)
"""LOG_STD_MIN and LOG_STD_MAX of stable-baselines3's SAC and sb3-contrib's TQC."""


@dataclass(frozen=True)
class Layout:
    """Where a family of algorithms keeps its actor.

    Attributes:
        layers: names of the linear layers in their order, the one that gives the mean last.
        log_std: the keys that give the logarithm of the standard deviation; empty where there is none.
        squashes: whether actions are tanh-squashed and scaled, rather than clipped.
        activation: the algorithms' default.
    """

    layers: list[str]
    log_std: tuple[str, ...]
    squashes: bool
    activation: type[nn.Module]

    @property
    def keys(self) -> set[str]:
        """What the state dict holds of the actor."""
        return {f"{layer}.{part}" for layer in self.layers for part in ("weight", "bias")} | {*self.log_std}


class StableBaselines3Actor(nn.Module):
    """An actor: see the module for its equations.

    Args:
        state: the state dict of the policy.
        layout: where the actor is in it.
        activation: of the hidden layers.
        low: lower bounds of actions, (action_dim,).
        high: upper bounds, likewise.
        normalize: what observations go through first.
    """

    action_low: Tensor
    action_high: Tensor

    def __init__(
        self,
        state: Mapping[str, Tensor],
        layout: Layout,
        activation: type[nn.Module],
        low: np.ndarray,
        high: np.ndarray,
        normalize: nn.Module | None = None,
    ) -> None:
        super().__init__()
        *hidden, mean = [fixed_linear(state[f"{name}.weight"], state[f"{name}.bias"]) for name in layout.layers]
        self.normalize = nn.Identity() if normalize is None else normalize
        self.hidden = nn.Sequential(*(module for layer in hidden for module in (layer, activation())))
        self.mean, self.squashes = mean, layout.squashes
        self.log_deviation: nn.Module | None = None
        if len(layout.log_std) == 2:
            head = fixed_linear(*(state[key] for key in layout.log_std))
            self.log_deviation = nn.Sequential(head, nn.Hardtanh(*LOG_STD_RANGE))
        elif layout.log_std:                                        # the same whatever is observed
            self.log_deviation = fixed_linear(torch.zeros_like(mean.weight), state[layout.log_std[0]])
        self.observation_dim = (hidden or [mean])[0].in_features
        self.action_dim = mean.out_features
        self.register_buffer("action_low", torch.tensor(low, dtype=torch.float32))
        self.register_buffer("action_high", torch.tensor(high, dtype=torch.float32))

    def forward(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """Act on ``observations`` (batch, observation_dim); actions (batch, action_dim) in the environment's units."""
        actions, log_deviation = self.distribution(observations)
        if log_deviation is not None and not deterministic:
            actions = actions + log_deviation.exp() * torch.randn_like(actions)
        if not self.squashes:
            return actions.clamp(self.action_low, self.action_high)
        return self.action_low + (self.action_high - self.action_low) * (torch.tanh(actions) + 1) / 2

    def distribution(self, observations: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean of u, (batch, action_dim), and the logarithm of its standard deviation; None where it has none."""
        hidden = self.hidden(self.normalize(observations))
        return self.mean(hidden), None if self.log_deviation is None else self.log_deviation(hidden)

    def player(self, deterministic: bool = True, replan: bool = False) -> Player:
        """What plays it; it answers every step anew, so ``replan`` changes nothing."""
        return Memoryless(partial(self, deterministic=deterministic))


def is_file(path: Path) -> bool:
    """Whether a zip archive with a ``policy.pth`` lies at ``path``."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return "policy.pth" in archive.namelist()


def load(path: Path, spaces: EnvironmentSpaces | None) -> StableBaselines3Actor:
    """Rebuild the actor of a stable-baselines3 file, with the VecNormalize statistics that lie beside it, if any.

    Args:
        path: the ``.zip``.
        spaces: of the environment, whose action bounds must be the file's, and are used; None takes them from the file.

    Raises:
        InputError: the file is damaged, or its policy is not one of those that the module names.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            data, weights = json.loads(archive.read("data")), io.BytesIO(archive.read("policy.pth"))
        if not isinstance(data, dict):
            raise TypeError(f"data is a {type(data).__name__}")
    except Exception as error:                                      # zipfile has many kinds: damaged, encrypted, lacking
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: cannot be read as a stable-baselines3 file ({reason}). Save or copy it again.") from error
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        state = {key: value for key, value in state.items() if not key.startswith(UNUSED)}
    except Exception as error:
        raise InputError(
            f"{path}: its policy.pth cannot be read ({type(error).__name__}). Wanted: a state dict of tensors, as "
            "stable-baselines3's save writes it. Pickled objects are refused, not run."
        ) from error
    try:
        _refuse_other_policies(data, state)
        layout = _layout(state)
        activation = _activation(_texts(data, "policy_kwargs"), layout.activation)
        observation_dim = state[f"{layout.layers[0]}.weight"].shape[1]
        low, high = _bounds(_texts(data, "action_space"), observation_dim, spaces)
        normalize = vec_normalize.beside(path)
        # off-policy algorithms set _last_original_obs in any case
        if normalize is None and not layout.squashes and data.get("_last_original_obs") is not None:
            raise InputError(
                "it was trained under VecNormalize, and no statistics lie beside it. Copy those that VecNormalize.save "
                f"wrote to {path.with_name(vec_normalize.NAMES[0])}."
            )
        actor = StableBaselines3Actor(state, layout, activation, low, high, normalize).eval()
        actor.distribution(torch.zeros(1, observation_dim))         # raises where the parts do not fit together
        if spaces is None and not low.shape == high.shape == (actor.action_dim,):
            raise InputError(f"its data says {len(low)} low and {len(high)} high bounds of {actor.action_dim} actions.")
    except (InputError, AttributeError, TypeError, RuntimeError, IndexError) as error:
        raise InputError(f"{path}: not an expert that can be loaded: {error}") from error
    return actor


def _texts(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """What ``data`` says in text of the object ``key``."""
    value = data.get(key)
    if not isinstance(value, dict):
        raise InputError(f"its data says nothing of {key}. Save it again with stable-baselines3.")
    return value


def _refuse_other_policies(data: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    options = _texts(data, "policy_kwargs")
    for key in ("observation_space", "action_space"):
        kind = str(_texts(data, key).get(":type:"))
        if not kind.endswith("spaces.box.Box'>"):
            raise InputError(f"its {key} is a {kind}; wanted a Box. Dict observations and discrete actions are not read.")
    if data.get("use_sde") or options.get("use_sde"):
        raise InputError("it explores by gSDE (use_sde=True), which is not read. Train it with use_sde=False.")
    for part, kind in (("lstm", "a recurrent policy"), ("features_extractor", "a features extractor with weights (CNN)")):
        if found := next((key for key in state if part in key), None):
            raise InputError(f"it has {kind}: its state dict holds {found}. Only MlpPolicy is read.")
    module = str(_texts(data, "policy_class").get("__module__"))
    if not module.startswith(("stable_baselines3.", "sb3_contrib.")):
        raise InputError(f"its policy_class is a program of its own, in {module}. Only MlpPolicy is read.")
    known = POLICY_OPTIONS | {":type:", ":serialized:", "use_sde", "features_extractor_class"}
    flattens = str(options.get("features_extractor_class", "FlattenExtractor'>")).endswith("FlattenExtractor'>")
    if unknown := sorted(set(options) - known) + ([] if flattens else ["features_extractor_class"]):
        values = ", ".join(f"{key}={options[key]}" for key in unknown)
        raise InputError(f"its policy_kwargs hold {values}, which may make it another policy than MlpPolicy.")


def _layout(state: Mapping[str, Tensor]) -> Layout:
    """Which family's actor it is, told by the keys."""

    def numbered(prefix: str) -> list[str]:
        count = sum(re.fullmatch(rf"{re.escape(prefix)}\.\d+\.weight", key) is not None for key in state)
        return [f"{prefix}.{2 * number}" for number in range(count)]    # activations have the odd numbers

    if "action_net.weight" in state:
        layout = Layout([*numbered("mlp_extractor.policy_net"), "action_net"], ("log_std",), False, nn.Tanh)
    elif "actor.mu.weight" in state:
        log_std = ("actor.log_std.weight", "actor.log_std.bias")
        layout = Layout([*numbered("actor.latent_pi"), "actor.mu"], log_std, True, nn.ReLU)
    else:
        layout = Layout(numbered("actor.mu"), (), True, nn.ReLU)
    if not layout.layers or set(state) != layout.keys:
        raise InputError(
            "its state dict is not that of the MlpPolicy of SAC, TQC, TD3, DDPG, PPO or A2C; "
            f"missing: {sorted(layout.keys - set(state))}, unknown: {sorted(set(state) - layout.keys)}"
        )
    return layout


def _activation(options: Mapping[str, Any], default: type[nn.Module]) -> type[nn.Module]:
    """The activation function that the text of ``policy_kwargs`` names, else the algorithm's default."""
    if "activation_fn" not in options:
        return default
    named = re.fullmatch(r"<class 'torch\.nn\.modules\.activation\.(\w+)'>", str(options["activation_fn"]))
    if named is None or named[1] not in ACTIVATIONS:
        raise InputError(f"its activation_fn is {options['activation_fn']}; known are {', '.join(ACTIVATIONS)} of torch.nn.")
    return ACTIVATIONS[named[1]]


def _bounds(
    space: Mapping[str, Any], observation_dim: int, spaces: EnvironmentSpaces | None
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds of actions, (action_dim,); the environment's, where it is known, since the file rounds them."""
    said = [_numbers(str(space.get(key))) for key in ("low", "high")]
    if spaces is None:
        low, high = said
        if low is None or high is None:
            raise InputError("its data does not hold the action bounds as text, so it is an expert in an environment only.")
        return low, high
    bounds = (spaces.action_low, spaces.action_high)
    for key, found, wanted in zip(("low", "high"), said, bounds, strict=True):
        if found is None or found.shape != wanted.shape or observation_dim != spaces.observation_dim:
            continue                                                # other dimensions are refused as any expert's are
        if not np.allclose(found, wanted, rtol=1e-5):
            raise InputError(
                f"its actions have the {key} bounds {found.tolist()}; {spaces.environment_id} has {wanted.tolist()}. It was "
                "trained on another environment, or on one that rescales actions."
            )
    return bounds


def _numbers(text: str) -> np.ndarray | None:
    """NumPy's text of a vector; None where it is none, or is abbreviated."""
    try:
        return np.array([float(number) for number in text.strip("[]").split()])
    except ValueError:
        return None
