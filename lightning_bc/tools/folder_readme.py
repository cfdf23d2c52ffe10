"""The README.md of an exported folder: how to act with it where this package is not installed."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_bc.networks import MLP
from lightning_bc.strategies import Strategy

_ACTIVATIONS = {nn.ReLU: "np.maximum(hidden, 0)", nn.Tanh: "np.tanh(hidden)", nn.SiLU: "hidden / (1 + np.exp(-hidden))"}
"""Those that take one line of NumPy."""

_HEAD = """# {strategy}{where}

Exported by lightning_bc {version}. An observation is {observation_dim} numbers as the environment gives them, an action
{action_dim} in its units, from {low} to {high}.

| file | what it holds |
|---|---|
| `policy.json` | strategy, settings, sizes, action bounds, normalisation, environment, versions, SHA-256 of the weights |
| `policy.safetensors` | the weights that act |
"""

_GRAPHS = {
    "policy.onnx": "| `policy.onnx` | ONNX: `observations` {observations} to deterministic `actions` {actions} |\n",
    "policy_sampled.onnx": "| `policy_sampled.onnx` | ONNX: `observations`, and `noise` (batch, {noise_dim}) drawn from a "
    "standard Normal, to sampled `actions` |\n",
}

_PACKAGE = """
## With lightning_bc

```text
policy = lightning_bc.load("FOLDER")
python -m lightning_bc evaluate FOLDER
```
"""

_ONNX = """
## With onnxruntime and NumPy

```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("policy.onnx")

def act(observations):                                # (batch, {observation_dim}) to (batch, {action_dim})
    return session.run(None, {{"observations": np.asarray(observations, np.float32)}})[0]
```
"""

_ONNX_MEMORY = """
## With onnxruntime and NumPy

The policy sees the last {history} observations, the present one last; before an episode's first stands that one again. It
answers with the next {chunk} actions, which are played before it is asked again. Call `begin` where an episode begins, and
`act` at every step.

```python
import collections
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("policy.onnx")
seen, planned = collections.deque(maxlen={history}), collections.deque()

def begin():
    seen.clear(), planned.clear()

def act(observation):                                 # ({observation_dim},) to ({action_dim},)
    seen.extend([np.asarray(observation, np.float32)] * (1 if seen else {history}))
    if not planned:
        windows = np.stack(seen)[None]                # (batch, {history}, {observation_dim})
        planned.extend(session.run(None, {{"observations": windows}})[0][0])
    return planned.popleft()
```
"""

_SAMPLED = """
For samples take `policy_sampled.onnx`, and give it new noise at each call, too:
`"noise": np.random.randn(batch, {noise_dim}).astype(np.float32)`. Noise of zeros is one sample among others, and not the
deterministic action.
"""

_NUMPY = """
## With safetensors and NumPy

The deterministic action is tanh of the network's {first}outputs, from [-1, 1] brought to the bounds.

```python
import json
import pathlib
import numpy as np
from safetensors.numpy import load_file

policy, weights = json.loads(pathlib.Path("policy.json").read_text()), load_file("policy.safetensors")
names = ("observation_mean", "observation_scale", "action_low", "action_high")
mean, scale, low, high = (np.array(policy[name], np.float32) for name in names)

def layer(number, inputs):
    return inputs @ weights[f"{prefix}{{number}}.weight"].T + weights[f"{prefix}{{number}}.bias"]

def act_by_weights(observations):                     # (batch, {observation_dim}) to (batch, {action_dim})
    hidden = {times}((observations - mean) / scale).clip(-1e6, 1e6)
    for number in {hidden}:
        hidden = layer(number, hidden)
        hidden = {activation}
    return low + (high - low) * (np.tanh(layer({last}, hidden)[:, :{action_dim}]) + 1) / 2
```
"""

_EQUATIONS = """
## With safetensors

`safetensors.numpy.load_file("policy.safetensors")` gives the weights by name. The network sees (observation -
observation_mean) / observation_scale, and actions are low + (high - low) (a + 1) / 2 of a in [-1, 1]. How {strategy} makes a
of the network's outputs is more than one line: its equations stand at the head of {module}.
"""


def readme(strategy: Strategy, description: Mapping[str, Any], found: list[str]) -> str:
    """The text; ``found`` is what the checks at export have found, in words."""
    graphs = description["onnx"] or {}
    rounded = {key: [round(bound, 4) for bound in description[f"action_{key}"]] for key in ("low", "high")}
    where = f" for {description['environment_id']}" if description["environment_id"] else ""
    remembers = strategy.has_windows
    values = {
        **description,
        **rounded,
        "where": where,
        "version": description["versions"]["lightning_bc"],
        "observations": _shape("history" if remembers else "", description, "observation_dim"),
        "actions": _shape("chunk" if remembers else "", description, "action_dim"),
        "noise_dim": graphs.get("policy_sampled.onnx", {}).get("noise_dim", 0),
        "module": type(strategy).__module__,
    }
    text = _HEAD + "".join(_GRAPHS[name] for name in graphs) + _PACKAGE
    if graphs:
        text += (_ONNX_MEMORY if remembers else _ONNX) + (_SAMPLED if len(graphs) > 1 else "")
    network = _network_in_numpy(strategy)
    text += _NUMPY if network else _EQUATIONS
    checks = "".join(f"- {line}\n" for line in found)
    return text.format(**values, **network) + (f"\n## Checked at export\n\n{checks}" if found else "")


def _shape(steps: str, description: Mapping[str, Any], size: str) -> str:
    return f"(batch, {f'{description[steps]}, ' if steps else ''}{description[size]})"


def _network_in_numpy(strategy: Strategy) -> dict[str, Any]:
    """Where the layers lie, of policies that are tanh of a multi-layer perceptron's outputs; empty for others."""
    network = strategy.actor
    if not isinstance(network, MLP) or strategy.has_windows:
        return {}
    linear = [number for number, layer in enumerate(network.layers) if isinstance(layer, nn.Linear)]
    activation = _ACTIVATIONS.get(type(network.layers[1])) if len(linear) > 1 else "hidden"
    if activation is None or not _is_tanh_of_outputs(strategy, network):
        return {}
    name = next(name for name, module in strategy.named_modules() if module is network)
    outputs = network.layers[linear[-1]].out_features
    return {
        "prefix": f"{name}.layers.",
        "hidden": tuple(linear[:-1]),
        "last": linear[-1],
        "activation": activation,
        "times": "" if network.input_scale == 1 else f"{network.input_scale} * ",
        "first": f"first {strategy.action_dim} " if outputs != strategy.action_dim else "",
    }


def _is_tanh_of_outputs(strategy: Strategy, network: MLP) -> bool:
    """Tried on random observations, so that a strategy need not say it."""
    observations = torch.randn(64, strategy.observation_dim, generator=torch.Generator().manual_seed(0))
    if network.layers[0].in_features != strategy.observation_dim:  # it sees more than the observation
        return False
    with torch.inference_mode():
        outputs: Tensor = network(observations)[:, : strategy.action_dim]
        actions = strategy.act(observations, deterministic=True)
    return outputs.shape == actions.shape and torch.allclose(outputs.tanh(), actions, rtol=0, atol=1e-6)
