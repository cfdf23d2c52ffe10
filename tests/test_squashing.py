"""Actions before the tanh, against numpy and torch.distributions."""

import numpy as np
import torch
from torch.distributions.transforms import TanhTransform

from lightning_bc.strategies.offline.squashing import log_volume, unsquash


def test_unsquash_inverts_the_tanh():
    actions = torch.linspace(-0.999, 0.999, 1001, dtype=torch.float64).reshape(-1, 7)
    torch.testing.assert_close(unsquash(actions).tanh(), actions, rtol=0, atol=1e-12)
    np.testing.assert_allclose(unsquash(actions).numpy(), np.arctanh(actions.numpy()), atol=1e-12)


def test_log_volume_equals_torch_distributions():
    before = torch.linspace(-3.7, 3.7, 1001, dtype=torch.float64).reshape(-1, 7)
    reference = TanhTransform().log_abs_det_jacobian(before, before.tanh()).sum(-1)
    torch.testing.assert_close(log_volume(before.tanh()), reference, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_volume(before.tanh().float()), reference.float(), rtol=1e-4, atol=1e-3)


def test_actions_on_and_beyond_the_bounds_count_as_a_thousandth_within():
    bounds, within = torch.tensor([[-1.0, 1.0, -7.0, 7.0]]), torch.tensor([[-0.999, 0.999, -0.999, 0.999]])
    assert torch.equal(unsquash(bounds), unsquash(within))
    assert torch.equal(log_volume(bounds), log_volume(within))
    torch.testing.assert_close(unsquash(bounds), torch.tensor([[-3.8002, 3.8002, -3.8002, 3.8002]]), rtol=0, atol=1e-3)
    assert log_volume(bounds).isfinite().all()
