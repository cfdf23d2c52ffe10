"""The same on a CUDA device: skipped where there is none."""

from functools import partial

import pytest
import torch
from conftest import build_strategy

from lightning_bc import Policy
from lightning_bc.demonstrations import Batches, Origin, Trajectories
from lightning_bc.demonstrations.blocks import Blocks
from lightning_bc.demonstrations.shards import Shards
from lightning_bc.demonstrations.streaming import StreamedBatches
from lightning_bc.demonstrations.windows import Windows
from lightning_bc.demonstrations.writing import writing
from lightning_bc.environments import make
from lightning_bc.episodes import SELECTION_BANK, play
from lightning_bc.strategies import Diffusion, strategies

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("cls", strategies().values(), ids=strategies())
def test_a_policy_answers_as_on_the_cpu(cls):
    """In double precision, where no two of the VAE's codes are equally likely."""
    strategy, observations = build_strategy(cls).double(), torch.randn(100, 3, dtype=torch.float64)
    with torch.inference_mode():
        expected = strategy(observations)
        found = strategy.to("cuda")(observations.to("cuda"))
    assert found.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), expected, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("windows", [{}, {"history": 2, "horizon": 4, "chunk": 2}], ids=["", "with memory"])
def test_a_policy_on_the_device_answers_where_the_observation_lies(windows):
    strategy = build_strategy(Diffusion, **windows)
    on_cpu = Policy(strategy)
    observations = torch.randn(3, 5, 3)                             # (steps, batch, observation_dim)
    wanted = [on_cpu(batch) for batch in observations]
    policy = Policy(strategy.to("cuda"))
    for given in (observations, observations.to("cuda"), observations.numpy()):
        policy.reset()
        for batch, answer in zip(given, wanted, strict=True):
            found = policy(batch)
            assert isinstance(found, type(batch))
            found = torch.as_tensor(found)
            assert found.device == torch.as_tensor(batch).device
            torch.testing.assert_close(found.cpu(), answer, atol=1e-4, rtol=1e-4)


def test_batches_stay_on_the_device_and_repeat_themselves():
    observations = torch.arange(1000.0, device="cuda").unsqueeze(1)
    first, second = (Batches(observations, observations, 64, seed=3) for _ in range(2))
    seen = []
    for (one,), (other,) in zip(first, second, strict=True):
        assert one[0].device.type == "cuda"
        assert torch.equal(one[0], other[0])
        seen.append(one[0])
    assert torch.equal(torch.cat(seen).sort(0).values, observations)


def test_batches_that_are_streamed_to_the_device_are_those_on_the_cpu(tmp_path):
    made = Trajectories(torch.randn(500, 3), torch.randn(500, 2), torch.tensor([100] * 5))
    with writing(tmp_path / "made.shards") as writer:
        writer.add(made)
        writer.close(Origin("made"))
    blocks = Blocks(Shards.at(tmp_path / "made.shards"), made.lengths.numpy(), 1, size=8, per_buffer=5)
    served = []
    for device in (torch.device("cpu"), torch.device("cuda")):
        windows = Windows(torch.empty(0, dtype=torch.int64), 2, 3, device)
        batches = StreamedBatches(blocks, 32, 0, device=device, windows=windows, num_batches=40)
        served.append([batch for group in batches for batch in group])
    for on_cpu, on_device in zip(*served, strict=True):
        for one, other in zip(on_cpu, on_device, strict=True):
            assert other.device.type == "cuda"
            assert torch.equal(one, other.cpu())


def test_windows_are_cut_on_the_device():
    observations, lengths = torch.arange(24.0).reshape(12, 2), torch.tensor([5, 7])

    def batches_on(device):
        pairs = observations.to(device)
        return Batches(pairs, pairs, 12, seed=3, windows=Windows(lengths, 3, 4, torch.device(device)))

    there, here = batches_on("cuda"), batches_on("cpu")
    rows = torch.arange(12)
    for found, wanted in zip(
        there.windows.cut(there.observations, there.actions, rows.to("cuda")),
        here.windows.cut(here.observations, here.actions, rows),
        strict=True,
    ):
        assert found.device.type == "cuda"
        assert torch.equal(found.cpu(), wanted)
    ((batch,),) = list(there)
    assert {tensor.device.type for tensor in batch} == {"cuda"}


def test_episodes_leave_the_random_states_alone_and_repeat_themselves():
    strategy = build_strategy(
        strategies()["GaussianMixture"], observation_dim=4, action_low=[-3.0], action_high=[3.0]
    ).to("cuda")
    environments, policy = make("InvertedPendulum-v5", 4), partial(strategy, deterministic=False)
    states = torch.get_rng_state(), torch.cuda.get_rng_state()
    first = play(policy, environments, SELECTION_BANK.seeds(8), device="cuda")
    second = play(policy, environments, SELECTION_BANK.seeds(8), device="cuda")
    assert (first.returns == second.returns).all()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert torch.equal(torch.cuda.get_rng_state(), states[1])
