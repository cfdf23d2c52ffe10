"""The stream of batches: every pair once a pass, an order that depends on seed and pass alone, exact resumption."""

import itertools

import pytest
import torch

from lightning_bc.demonstrations import Batches

SIZES = [
    pytest.param(12, 4, id="divides"),
    pytest.param(13, 4, id="rest of 1"),
    pytest.param(14, 4, id="rest of 2"),
    pytest.param(25, 4, id="rest of 1 after a division by 2 and 3 ranks"),
    pytest.param(26, 4, id="rest of 2 after a division by 2 and 3 ranks"),
    pytest.param(101, 7, id="primes"),
    pytest.param(5, 100, id="batch larger than the data"),
    pytest.param(3, 1, id="single pairs"),
    pytest.param(3, 3, id="one batch"),
]


def batches_of(pairs, batch_size, seed=0, num_batches=None, rank=0, world_size=1):
    """Batches over pairs whose observation and action both say their number."""
    numbers = torch.arange(pairs)
    observations, actions = numbers[:, None].float(), -numbers[:, None].float()
    return Batches(observations, actions, batch_size, seed, num_batches=num_batches, rank=rank, world_size=world_size)


def numbers(batches):
    """The pairs' numbers in each batch of one iteration."""
    rows = []
    for observations, actions in itertools.chain.from_iterable(batches):
        assert torch.equal(observations, -actions)  # a pair stays a pair
        rows.append(observations[:, 0].int().tolist())
    return rows


def flat(rows):
    return list(itertools.chain.from_iterable(rows))


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize(("pairs", "batch_size"), SIZES)
def test_each_pass_serves_each_pair_exactly_once(pairs, batch_size, world_size):
    ranks = [batches_of(pairs, batch_size, rank=rank, world_size=world_size) for rank in range(world_size)]
    for _ in range(3):
        shares = [numbers(rank) for rank in ranks]
        assert sorted(flat(flat(shares))) == list(range(pairs))  # so the shares are disjoint, too
        assert {len(share) for share in shares} == {len(ranks[0])}  # as many batches on each rank
        assert all(batch for share in shares for batch in share)  # none of them empty
        for step in zip(*shares, strict=True):
            sizes = [len(batch) for batch in step]
            assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("pairs", "batch_size"), SIZES)
def test_all_batches_but_the_last_are_full_and_only_ranks_change_that(pairs, batch_size):
    sizes = [len(batch) for batch in numbers(batches_of(pairs, batch_size))]
    assert set(sizes[:-1]) <= {batch_size}
    assert sizes[-1] == (pairs - 1) % batch_size + 1
    # A rest smaller than the number of ranks joins the batch before it.
    shared = [len(batch) for batch in numbers(batches_of(pairs, batch_size, world_size=3))]
    assert set(shared[:-1]) <= {batch_size}
    assert shared[-1] <= batch_size + 1


def test_ranks_share_the_batches_that_one_process_would_serve():
    alone = numbers(batches_of(24, 6))
    shares = [numbers(batches_of(24, 2, rank=rank, world_size=3)) for rank in range(3)]
    assert [sorted(flat(step)) for step in zip(*shares, strict=True)] == [sorted(batch) for batch in alone]


# The order


def test_order_is_a_function_of_seed_and_pass():
    first, again = batches_of(50, 7, seed=3), batches_of(50, 7, seed=3)
    passes = [numbers(first) for _ in range(3)]
    assert [numbers(again) for _ in range(3)] == passes
    assert flat(passes[0]) != flat(passes[1]) != flat(passes[2]) != flat(passes[0])


@pytest.mark.parametrize("seeds", [(0, 1), (1, 2), (0, 2**31), (7, 7 + 2**32 - 8)], ids=str)
def test_seeds_give_different_orders(seeds):
    orders = [flat(numbers(batches_of(50, 50, seed=seed))) for seed in seeds]
    assert orders[0] != orders[1]


def test_passes_of_neighbouring_seeds_do_not_coincide():
    orders = {tuple(batches_of(50, 50, seed=seed).permutation(index).tolist()) for seed in range(20) for index in range(20)}
    assert len(orders) == 400


def test_order_is_uniform():
    """Each pair comes first about equally often: chi-squared over 10 places, 99.9 % quantile for 9 degrees of freedom."""
    first = torch.tensor([batches_of(10, 10, seed=seed).permutation(0)[0] for seed in range(2000)])
    counts = torch.bincount(first, minlength=10).double()
    assert ((counts - 200) ** 2 / 200).sum() < 27.9


def test_random_state_of_torch_is_left_alone():
    before = torch.get_rng_state()
    numbers(batches_of(50, 7))
    assert torch.equal(torch.get_rng_state(), before)


# Iterations that are not one pass


def test_one_iteration_may_span_many_passes():
    by_pass = batches_of(10, 4)  # 3 batches a pass
    passes = [numbers(by_pass) for _ in range(4)]
    spanning = batches_of(10, 4, num_batches=11)
    assert len(spanning) == 11
    assert numbers(spanning) == flat(passes)[:11]


def test_iterations_go_on_where_the_last_one_ended():
    by_pass = batches_of(10, 4)
    stream = flat([numbers(by_pass) for _ in range(4)])
    short = batches_of(10, 4, num_batches=2)
    assert flat([numbers(short) for _ in range(6)]) == stream


@pytest.mark.parametrize("group_size", [2, 3, 100])
def test_groups_hold_the_same_batches(group_size):
    def groups():
        plain = batches_of(10, 4, num_batches=7)
        return Batches(plain.observations, plain.actions, 4, 0, group_size=group_size, num_batches=7)

    grouped = groups()
    assert numbers(grouped) == numbers(batches_of(10, 4, num_batches=7))
    sizes = [len(group) for group in groups()]
    assert sizes == [group_size] * (7 // group_size) + [7 % group_size] * (7 % group_size > 0)
    assert len(grouped) == len(sizes)


def test_stop_ends_the_stream():
    plain = batches_of(10, 4)
    batches = Batches(plain.observations, plain.actions, 4, 0, group_size=2, stop=5)
    assert [len(numbers(batches)) for _ in range(3)] == [3, 2, 0]


# Resumption


@pytest.mark.parametrize("stopped_after", [0, 1, 4, 7, 10, 11])
@pytest.mark.parametrize("num_batches", [None, 5], ids=["pass by pass", "iterations of 5"])
def test_resumed_stream_serves_the_very_same_batches(stopped_after, num_batches):
    def stream(batches, iterations):
        return [batch for _ in range(iterations) for batch in numbers(batches)]

    iterations, length = 4, num_batches or 3
    whole = stream(batches_of(10, 4, seed=5, num_batches=num_batches), iterations)

    interrupted = batches_of(10, 4, seed=5, num_batches=num_batches)
    served, state = [], interrupted.state_dict()
    while len(served) < stopped_after:
        for ((observations, _),) in interrupted:
            served.append(observations[:, 0].int().tolist())
            state = interrupted.state_dict()
            if len(served) == stopped_after:
                break

    resumed = batches_of(10, 4, seed=5, num_batches=num_batches)
    resumed.load_state_dict(state)
    rest = []
    while len(served) + len(rest) < iterations * length:
        rest += numbers(resumed)
    assert served + rest == whole


def test_resumed_iteration_ends_where_the_interrupted_one_would_have():
    interrupted, resumed = batches_of(10, 4, num_batches=5), batches_of(10, 4, num_batches=5)
    numbers(interrupted)
    list(itertools.islice(interrupted, 2))
    resumed.load_state_dict(interrupted.state_dict())
    assert len(numbers(resumed)) == 3
    assert len(numbers(resumed)) == 5
