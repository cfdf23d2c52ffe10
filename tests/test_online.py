"""Replay, soft actor-critic's parts and the discriminator's losses, against lists, torch.distributions and plain layers."""

import pytest
import torch
from scipy import stats
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform
from torch.nn import functional as F

from lightning_bc.strategies.contract import Transitions
from lightning_bc.strategies.online.discriminators import classification_loss, gradient_penalty
from lightning_bc.strategies.online.replay import Replay
from lightning_bc.strategies.online.soft_actor_critic import LOG_SCALE_RANGE, Critics, SquashedGaussian

OBSERVATION_DIM, ACTION_DIM = 3, 2


def numbered(first, count):
    """Transitions that are recognised by their reward, each field a function of it."""
    number = torch.arange(first, first + count, dtype=torch.float32)
    columns = torch.arange(1.0, 4.0)
    return Transitions(
        observations=number.unsqueeze(-1) * columns,
        actions=number.unsqueeze(-1) + columns[:ACTION_DIM],
        rewards=number,
        next_observations=-number.unsqueeze(-1) * columns,
        terminated=number % 2,
    )


def filled(capacity, *counts):
    replay, first = Replay(capacity, OBSERVATION_DIM, ACTION_DIM), 0
    for count in counts:
        replay.add(numbered(first, count))
        first += count
    return replay


def held(replay, draws=2000):
    """The numbers that sampling finds."""
    torch.manual_seed(0)
    return set(replay.sample(draws).rewards.int().tolist())


# Replay


@pytest.mark.parametrize(
    "counts", [(4,), (10,), (4, 4, 4), (7, 10), (3, 25), (25, 3), (1,) * 13, (10, 10, 1), (23, 23)], ids=str
)
def test_replay_holds_the_last_transitions_and_no_others(counts):
    replay, total = filled(10, *counts), sum(counts)
    assert len(replay) == min(total, 10)
    assert held(replay) == set(range(max(0, total - 10), total))


def test_the_oldest_gives_way_first_also_after_more_than_fits_was_added_at_once():
    replay = filled(10, 3, 25)
    for newest in range(28, 45):
        replay.add(numbered(newest, 1))
        assert held(replay) == set(range(newest - 9, newest + 1))


def test_the_fields_of_a_sample_belong_together():
    sample = filled(50, 30, 45).sample(200)
    expected = [numbered(int(number), 1) for number in sample.rewards]
    assert [tuple(column.shape) for column in vars(sample).values()] == [(200, 3), (200, 2), (200,), (200, 3), (200,)]
    for name, column in vars(sample).items():
        assert torch.equal(column, torch.cat([getattr(one, name) for one in expected])), name


def test_replay_keeps_copies():
    replay, given = Replay(10, OBSERVATION_DIM, ACTION_DIM), numbered(5, 1)
    replay.add(given)
    given.observations.zero_()
    replay.sample(4).observations.zero_()
    assert torch.equal(replay.sample(1).observations, numbered(5, 1).observations)


@pytest.mark.parametrize("counts", [(20,), (13, 20)], ids=["full", "wrapped"])
def test_sampling_is_uniform(counts):
    torch.manual_seed(0)
    replay = filled(20, *counts)
    drawn = torch.bincount(replay.sample(20_000).rewards.long(), minlength=sum(counts))[-20:]
    assert drawn.sum() == 20_000
    assert stats.chisquare(drawn.numpy()).pvalue > 0.01


@pytest.mark.parametrize("counts", [(6,), (10,), (7, 8), (3, 25)], ids=["partly filled", "full", "wrapped", "all at once"])
def test_a_restored_replay_goes_on_identically(counts, tmp_path):
    original, restored = filled(10, *counts), Replay(10, OBSERVATION_DIM, ACTION_DIM)
    torch.save(original.state_dict(), tmp_path / "replay.pt")
    restored.load_state_dict(torch.load(tmp_path / "replay.pt", weights_only=True))
    first = sum(counts)
    for count in (0, 1, 4, 30, 2):
        samples = []
        for replay in (original, restored):
            replay.add(numbered(first, count))
            torch.manual_seed(count)
            samples.append(replay.sample(50))
        assert all(torch.equal(a, b) for a, b in zip(*(vars(sample).values() for sample in samples), strict=True))
        first += count
    assert len(original) == len(restored) == 10


def test_a_saved_state_does_not_change_with_the_replay():
    replay = filled(10, 10)
    state = replay.state_dict()
    replay.add(numbered(10, 5))
    assert sorted(state["rows"][:, OBSERVATION_DIM + ACTION_DIM].tolist()) == list(range(10))


def test_what_does_not_fit_a_replay_raises():
    replay = filled(10, 5)
    with pytest.raises(RuntimeError):
        Replay(10, OBSERVATION_DIM, ACTION_DIM).sample(1)           # nothing is there
    with pytest.raises(RuntimeError):
        Replay(10, OBSERVATION_DIM + 1, ACTION_DIM).add(numbered(0, 2))
    with pytest.raises(RuntimeError):
        replay.add(mismatched())
    for capacity in (4, 20):
        with pytest.raises(RuntimeError):
            Replay(capacity, OBSERVATION_DIM, ACTION_DIM).load_state_dict(filled(10, 7, 6).state_dict())
    assert held(replay) == set(range(5))


def mismatched():
    """Transitions with one reward too few."""
    whole = numbered(0, 4)
    return Transitions(whole.observations, whole.actions, whole.rewards[1:], whole.next_observations, whole.terminated)


# The squashed Gaussian


def reference(outputs):
    """torch's own tanh of a Normal, from the same outputs of a network."""
    mean, raw = outputs.chunk(2, dim=-1)
    low, high = LOG_SCALE_RANGE
    scale = torch.exp(low + (high - low) * (torch.tanh(raw) + 1) / 2)
    return TransformedDistribution(Independent(Normal(mean, scale), 1), [TanhTransform(cache_size=1)])


def network_outputs(batch=64):
    return torch.randn(batch, 2 * ACTION_DIM, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_log_probability_equals_torch_distributions():
    outputs = network_outputs()
    actions = 2 * torch.rand(64, ACTION_DIM, generator=torch.Generator().manual_seed(2), dtype=torch.float64) - 1
    torch.testing.assert_close(SquashedGaussian(outputs).log_probability(actions), reference(outputs).log_prob(actions))


def test_samples_and_their_log_probability_equal_torch_distributions():
    outputs = network_outputs()
    torch.manual_seed(3)
    actions, log_probability = SquashedGaussian(outputs).sample()
    torch.manual_seed(3)
    distribution = reference(outputs)
    expected = distribution.rsample()
    torch.testing.assert_close(actions, expected)
    torch.testing.assert_close(log_probability, distribution.log_prob(expected))


def test_both_log_probabilities_agree_in_single_precision():
    outputs = network_outputs().float() * torch.tensor([1.0, 1.0, 0.3, 0.3])
    actions, log_probability = SquashedGaussian(outputs).sample()
    inside = (actions.abs() < 0.999).all(-1)
    assert inside.sum() > 10
    again = SquashedGaussian(outputs).log_probability(actions)
    torch.testing.assert_close(again[inside], log_probability[inside], rtol=1e-3, atol=2e-3)


def test_density_integrates_to_one():
    outputs = torch.tensor([[0.4, -0.2]], dtype=torch.float64)
    actions = torch.linspace(-0.99999, 0.99999, 20_001, dtype=torch.float64).unsqueeze(-1)
    density = SquashedGaussian(outputs.expand(len(actions), -1)).log_probability(actions).exp()
    assert torch.trapezoid(density, actions[:, 0]).item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("bound", [-1.0, 1.0])
def test_log_probability_is_finite_on_the_bounds(bound):
    outputs = 10 * network_outputs().float()
    outputs.requires_grad_()
    log_probability = SquashedGaussian(outputs).log_probability(torch.full((64, ACTION_DIM), bound))
    (gradient,) = torch.autograd.grad(log_probability.sum(), outputs)
    assert log_probability.isfinite().all()
    assert gradient.isfinite().all()


def test_samples_and_gradients_are_finite_however_large_the_outputs():
    outputs = torch.tensor([[1e4, -1e4, 1e4, -1e4]]).requires_grad_()
    actions, log_probability = SquashedGaussian(outputs).sample()
    assert torch.equal(actions, torch.tensor([[1.0, -1.0]]))
    (gradient,) = torch.autograd.grad(log_probability.sum(), outputs)
    assert log_probability.isfinite().all()
    assert gradient.isfinite().all()


def test_samples_carry_the_gradient_of_their_reparameterisation():
    """For the noise that was drawn, a = tanh(m + sigma e):  da/dm = 1 - a^2,  da/d(log sigma) = (1 - a^2) sigma e."""
    outputs = network_outputs().requires_grad_()
    policy = SquashedGaussian(outputs)
    actions, _ = policy.sample()
    by_mean, by_log_scale = torch.autograd.grad(actions.sum(), (policy.mean, policy.log_scale), retain_graph=True)
    slope = 1 - actions.square()
    torch.testing.assert_close(by_mean, slope)
    torch.testing.assert_close(by_log_scale, slope * (actions.arctanh() - policy.mean))
    assert torch.autograd.grad(actions.sum(), outputs)[0].all()


def test_the_gradient_of_the_sampled_entropy_is_that_of_the_closed_form():
    """Far from the bounds tanh is the identity, and the entropy is log sigma + (1 + log 2 pi) / 2 a dimension."""
    log_scale = torch.full((20_000, 1), -4.0, dtype=torch.float64)
    low, high = LOG_SCALE_RANGE
    raw = torch.atanh(2 * (log_scale - low) / (high - low) - 1)
    policy = SquashedGaussian(torch.cat([torch.zeros_like(raw), raw.requires_grad_()], dim=-1))
    _, log_probability = policy.sample()
    assert -log_probability.mean().item() == pytest.approx(Normal(0.0, torch.tensor(-4.0).exp()).entropy().item(), abs=0.03)
    (gradient,) = torch.autograd.grad(-log_probability.mean(), policy.log_scale)
    assert gradient.sum().item() == pytest.approx(1, abs=0.03)


# Critics


def test_each_critic_is_a_plain_network_of_its_slices():
    torch.manual_seed(0)
    critics = Critics(OBSERVATION_DIM + ACTION_DIM, hidden_sizes=(16, 8), members=3)
    observations, actions = torch.randn(20, OBSERVATION_DIM), torch.randn(20, ACTION_DIM)
    values = critics(observations, actions)
    assert values.shape == (3, 20)
    for member in range(3):
        hidden = torch.cat([observations, actions], dim=-1)
        for layer, size in enumerate((16, 8)):
            hidden = F.linear(hidden, critics.weights[layer][member].T, critics.biases[layer][member, 0])
            hidden = F.relu(F.layer_norm(hidden, (size,)))
        expected = F.linear(hidden, critics.weights[-1][member].T, critics.biases[-1][member, 0])
        torch.testing.assert_close(values[member], expected[:, 0])


def test_critics_begin_apart_and_learn_apart():
    torch.manual_seed(0)
    critics = Critics(OBSERVATION_DIM + ACTION_DIM, members=3)
    observations, actions = torch.randn(20, OBSERVATION_DIM), torch.randn(20, ACTION_DIM)
    values = critics(observations, actions)
    assert len({tuple(row.tolist()) for row in values}) == 3
    gradients = torch.autograd.grad(values[1].sum(), list(critics.parameters()))
    for gradient in gradients:
        assert gradient[1].any()
        assert not gradient[0].any()
        assert not gradient[2].any()


def test_weights_begin_as_those_of_linear_layers():
    torch.manual_seed(0)
    critics = Critics(50, hidden_sizes=(256,), members=2)
    linear = torch.nn.Linear(50, 256)
    for ours, theirs in ((critics.weights[0], linear.weight), (critics.biases[0], linear.bias)):
        assert ours.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.02)
        assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.1)


# The discriminator's losses


def test_classification_loss_is_binary_cross_entropy():
    torch.manual_seed(0)
    expert, learner = 5 * torch.randn(30), 5 * torch.randn(20)
    expected = F.binary_cross_entropy_with_logits(expert, torch.ones(30))
    expected = expected + F.binary_cross_entropy_with_logits(learner, torch.zeros(20))
    torch.testing.assert_close(classification_loss(expert, learner), expected)


def test_classification_loss_of_extreme_logits_is_finite():
    assert classification_loss(torch.tensor([-1e4]), torch.tensor([1e4])).item() == pytest.approx(2e4)


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0, 3.0])
def test_gradient_penalty_of_a_linear_function_is_known(slope):
    weight = slope * F.normalize(torch.tensor([1.0, -2.0, 0.5]), dim=0)
    penalty = gradient_penalty(lambda x: x @ weight + 7, torch.randn(10, 3), torch.randn(10, 3))
    assert penalty.item() == pytest.approx((slope - 1) ** 2, abs=1e-6)


def test_gradient_penalty_is_taken_between_the_two_inputs_of_a_pair():
    points = []
    expert, learner = torch.zeros(200, 3), torch.linspace(1, 2, 200).unsqueeze(-1).expand(-1, 3)

    def discriminator(inputs):
        points.append(inputs.detach())
        return inputs.sum(-1)

    gradient_penalty(discriminator, expert, learner)
    shares = points[0] / learner                                    # (200, 3), of the way from one to the other
    assert (shares.std(-1) < 1e-6).all()                            # one a pair
    assert (shares >= 0).all()
    assert (shares <= 1).all()
    assert shares.mean().item() == pytest.approx(0.5, abs=0.1)


def test_gradient_penalty_has_a_gradient_in_the_weights():
    """(|w| - 1)^2 falls along w: its gradient is 2 (|w| - 1) w / |w|."""
    weight = torch.tensor([1.5, -2.0], requires_grad=True)
    gradient_penalty(lambda x: x @ weight, torch.randn(5, 2), torch.randn(5, 2)).backward()
    torch.testing.assert_close(weight.grad, 2 * (2.5 - 1) * weight.detach() / 2.5)
