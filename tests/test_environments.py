"""Batched physics against gymnasium's own environments, and what both kinds of environments promise."""

import io
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.envs.registration import WrapperSpec
from gymnasium.vector import AutoresetMode, VectorEnv

from lightning_bc.environments import (
    TASKS,
    BatchedMujoco,
    Task,
    UnusableEnvironmentError,
    are_one,
    environment_spaces,
    limit_episodes,
    make,
    quiet_model_loading,
    resolved,
)
from lightning_bc.environments.loading import stop_clock
from lightning_bc.environments.make import _limits
from lightning_bc.errors import ExitedError, InputError

REWARD_TOLERANCE = {
    # Everything else is exactly equal; these rewards were too, but rest on routines that another build may round
    # otherwise than ours.
    "Humanoid-v5": 1e-10,  # the centre of mass: np.einsum adds bodies in an order that numpy does not promise
    "InvertedDoublePendulum-v5": 1e-10,  # squares: gymnasium's single numbers go through the C library's pow
    "Pusher-v5": 1e-10,  # distances: np.linalg.norm's dot product against np.vecdot's
    "Reacher-v5": 1e-10,  # distances, likewise
}


def gymnasium_environments(environment_id: str, num_envs: int) -> VectorEnv:
    with quiet_model_loading():
        return gymnasium.make_vec(
            environment_id,
            num_envs,
            vectorization_mode="sync",
            vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        )


def random_actions(environments: VectorEnv, steps: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Smooth random actions for 100 steps, then independent ones for 100, in turns; (num_envs, action_dim) float32."""
    space = environments.single_action_space
    assert isinstance(space, spaces.Box)
    generator = np.random.default_rng(seed)
    smooth = np.zeros((environments.num_envs, *space.shape))
    for step in range(steps):
        if step % 200 < 100:
            smooth = 0.9 * smooth + 0.4 * generator.standard_normal(smooth.shape)
            unit = np.clip(smooth, -1.0, 1.0)
        else:
            unit = generator.uniform(-1.0, 1.0, smooth.shape)
        yield (space.low + (space.high - space.low) * (unit + 1.0) / 2.0).astype(np.float32)


def saved_and_loaded(state: dict) -> dict:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_same_final_observations(infos: dict, expected: dict) -> None:
    assert ("final_obs" in infos) == ("final_obs" in expected)
    if "final_obs" in expected:
        np.testing.assert_array_equal(infos["_final_obs"], expected["_final_obs"])
        for index in np.flatnonzero(expected["_final_obs"]):
            np.testing.assert_array_equal(infos["final_obs"][index], expected["final_obs"][index])
        for index in np.flatnonzero(~expected["_final_obs"]):
            assert infos["final_obs"][index] is None


def assert_equals_gymnasium(environment_id: str, num_envs: int, steps: int, actions_type: type = np.float32) -> int:
    """Play both side by side; return how many episodes ended."""
    batched, reference = BatchedMujoco(environment_id, num_envs), gymnasium_environments(environment_id, num_envs)
    observations, infos = batched.reset(seed=3)
    np.testing.assert_array_equal(observations, reference.reset(seed=3)[0])
    assert infos == {}
    endings = 0
    for actions in random_actions(batched, steps):
        actions = actions.astype(actions_type)
        observations, rewards, terminated, truncated, infos = batched.step(actions)
        expected, expected_rewards, expected_terminated, expected_truncated, expected_infos = reference.step(actions)
        np.testing.assert_array_equal(observations, expected)
        np.testing.assert_allclose(rewards, expected_rewards, rtol=0, atol=REWARD_TOLERANCE.get(environment_id, 0))
        np.testing.assert_array_equal(terminated, expected_terminated)
        np.testing.assert_array_equal(truncated, expected_truncated)
        assert_same_final_observations(infos, expected_infos)
        endings += int((terminated | truncated).sum())
    assert observations.dtype == rewards.dtype == np.float64
    assert terminated.dtype == truncated.dtype == np.bool_
    assert np.isfinite(observations).all()
    reference.close()
    return endings


@pytest.mark.parametrize("environment_id", TASKS)
def test_batched_equals_gymnasium_for_1000_steps(environment_id: str) -> None:
    # Every task ends episodes within 1000 steps, by falling or by its time limit, so automatic resets are compared too.
    assert assert_equals_gymnasium(environment_id, num_envs=3, steps=1000) > 0


@pytest.mark.parametrize("environment_id", ["HalfCheetah-v5", "Humanoid-v5", "Pusher-v5"])
def test_batched_equals_gymnasium_for_float64_actions(environment_id: str) -> None:
    assert_equals_gymnasium(environment_id, num_envs=2, steps=20, actions_type=np.float64)


@pytest.mark.parametrize("limit", range(1, 10))
def test_time_limit_equals_gymnasium_also_in_the_step_that_terminates(
    monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(gymnasium.spec("InvertedPendulum-v5"), "max_episode_steps", limit)
    assert_equals_gymnasium("InvertedPendulum-v5", num_envs=4, steps=50)


@pytest.mark.parametrize("environment_id", TASKS)
def test_start_states_equal_gymnasium_for_each_seed(environment_id: str) -> None:
    batched = BatchedMujoco(environment_id, 3)
    with quiet_model_loading():
        reference = gymnasium.make(environment_id)
    consecutive, _ = batched.reset(seed=11)
    listed, _ = batched.reset(seed=[2_000_000_000, 5, 11])
    for index in range(3):
        np.testing.assert_array_equal(consecutive[index], reference.reset(seed=11 + index)[0])
    for index, seed in enumerate([2_000_000_000, 5, 11]):
        np.testing.assert_array_equal(listed[index], reference.reset(seed=seed)[0])
    reference.close()


def test_reset_without_seed_continues_the_generators_as_gymnasium() -> None:
    batched, reference = BatchedMujoco("Reacher-v5", 3), gymnasium_environments("Reacher-v5", 3)
    for seed in (4, None, [None, 9, None], None):
        np.testing.assert_array_equal(batched.reset(seed=seed)[0], reference.reset(seed=seed)[0])


@pytest.mark.parametrize("environment_id", ["HalfCheetah-v5", "Ant-v5", "Pendulum-v1"])
def test_reset_mask_resets_only_the_masked(environment_id: str) -> None:
    environments, reference = make(environment_id, 3), gymnasium_environments(environment_id, 3)
    environments.reset(seed=0)
    reference.reset(seed=0)
    actions = list(random_actions(environments, 12))
    for action in actions[:6]:
        environments.step(action)
        reference.step(action)
    mask = np.array([False, True, False])
    options = {"reset_mask": mask}
    observations, _ = environments.reset(seed=[7, 8, 9], options=options)
    expected, _ = reference.reset(seed=[7, 8, 9], options={"reset_mask": mask})
    assert options == {"reset_mask": mask}
    np.testing.assert_array_equal(observations, expected)
    for action in actions[6:]:
        np.testing.assert_array_equal(environments.step(action)[0], reference.step(action)[0])


@pytest.mark.parametrize("environment_id", ["HalfCheetah-v5", "Hopper-v5", "Ant-v5", "Pusher-v5", "Pendulum-v1"])
def test_inactive_stand_still_and_active_move_as_if_all_did(environment_id: str) -> None:
    num_envs, steps = 4, 300
    environments = make(environment_id, num_envs)
    actions = np.stack(list(random_actions(environments, steps)))   # (steps, num_envs, action_dim)
    observations, _ = environments.reset(seed=1)
    expected = [environments.step(action)[:4] for action in actions]

    taken = np.zeros(num_envs, dtype=int)                           # steps that each has made
    observations, _ = environments.reset(seed=1)
    generator = np.random.default_rng(0)
    while taken.min() < steps // 2:
        active = (generator.random(num_envs) < 0.6) & (taken < steps)
        given = actions[np.minimum(taken, steps - 1), np.arange(num_envs)]
        given[~active] = np.nan                                     # whatever is given to those that stand still
        before = observations
        observations, rewards, terminated, truncated, _ = environments.step(given, active)
        np.testing.assert_array_equal(observations[~active], before[~active])
        assert not rewards[~active].any()
        assert not terminated[~active].any()
        assert not truncated[~active].any()
        for index in np.flatnonzero(active):
            for found, wanted in zip(
                (observations, rewards, terminated, truncated), expected[taken[index]], strict=True
            ):
                np.testing.assert_array_equal(found[index], wanted[index])
        taken += active


def test_none_active_changes_nothing() -> None:
    environments = BatchedMujoco("HalfCheetah-v5", 2)
    before, _ = environments.reset(seed=0)
    state = environments.state_dict()
    observations, rewards, _, _, infos = environments.step(np.ones((2, 6), np.float32), np.zeros(2, np.bool_))
    np.testing.assert_array_equal(observations, before)
    assert not rewards.any()
    assert infos == {}
    assert torch.equal(environments.state_dict()["simulations"], state["simulations"])


@pytest.mark.parametrize("environment_id", TASKS)
def test_saved_state_continues_bit_equal(environment_id: str) -> None:
    environments = BatchedMujoco(environment_id, 3)
    assert environments.restores_exactly
    actions = list(random_actions(environments, 150))
    environments.reset(seed=0)
    for action in actions[:50]:
        environments.step(action)
    state = saved_and_loaded(environments.state_dict())
    one_stands = np.array([True, False, True])
    masks = [one_stands] * 20 + [None] * 80
    expected = [environments.step(action, mask) for action, mask in zip(actions[50:], masks, strict=True)]

    for continued in (environments, BatchedMujoco(environment_id, 3, threads=1)):
        continued.load_state_dict(state)
        np.testing.assert_array_equal(continued.observations, state["observations"].numpy())
        for action, mask, wanted in zip(actions[50:], masks, expected, strict=True):
            found = continued.step(action, mask)
            for part, wanted_part in zip(found[:4], wanted[:4], strict=True):
                np.testing.assert_array_equal(part, wanted_part)
            assert_same_final_observations(found[4], wanted[4])


def test_saved_state_of_other_environments_is_refused() -> None:
    state = BatchedMujoco("Swimmer-v5", 2).state_dict()
    with pytest.raises(ValueError, match="of Swimmer-v5; these sub-environments are Reacher-v5"):
        BatchedMujoco("Reacher-v5", 2).load_state_dict(state)
    with pytest.raises(ValueError, match="same number of sub-environments"):
        BatchedMujoco("Swimmer-v5", 3).load_state_dict(state)


@pytest.mark.parametrize("environment_id", ["HalfCheetah-v5", "Humanoid-v5"])
def test_threads_do_not_change_results(environment_id: str) -> None:
    one, three = BatchedMujoco(environment_id, 5, threads=1), BatchedMujoco(environment_id, 5, threads=3)
    np.testing.assert_array_equal(one.reset(seed=0)[0], three.reset(seed=0)[0])
    for actions in random_actions(one, 60):
        for found, wanted in zip(one.step(actions)[:4], three.step(actions)[:4], strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("environment_id", ["HalfCheetah-v5", "InvertedDoublePendulum-v5", "Pendulum-v1"])
def test_returned_arrays_survive_the_next_step(environment_id: str) -> None:
    environments = make(environment_id, 2)
    returned = [environments.reset(seed=0)[0]]
    copies = [returned[0].copy()]
    for actions in random_actions(environments, 30):
        observations, rewards, terminated, truncated, infos = environments.step(actions)
        arrays = [observations, rewards, terminated, truncated]
        if "final_obs" in infos:
            arrays += [infos["_final_obs"], *infos["final_obs"][infos["_final_obs"]]]
        returned += arrays
        copies += [array.copy() for array in arrays]
    for array, copy in zip(returned, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_written_observations_do_not_reach_the_environments() -> None:
    environments = BatchedMujoco("HalfCheetah-v5", 2)
    observations, _ = environments.reset(seed=0)
    observations[:] = np.nan
    assert np.isfinite(environments.observations).all()
    assert np.isfinite(environments.step(np.zeros((2, 6), np.float32))[0]).all()


@pytest.mark.parametrize("environment_id", ["Pendulum-v1", "MountainCarContinuous-v0", "HumanoidStandup-v5"])
def test_make_falls_back_to_gymnasium(environment_id: str) -> None:
    environments, reference = make(environment_id, 2), gymnasium_environments(environment_id, 2)
    assert not isinstance(environments, BatchedMujoco)
    assert environments.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    np.testing.assert_array_equal(environments.reset(seed=5)[0], reference.reset(seed=5)[0])
    for actions in random_actions(environments, 210):
        found, wanted = environments.step(actions), reference.step(actions)
        for part, wanted_part in zip(found[:4], wanted[:4], strict=True):
            np.testing.assert_array_equal(part, wanted_part)
        assert_same_final_observations(found[4], wanted[4])


def test_fallback_restarts_episodes_from_saved_seeds_and_warns() -> None:
    environments = make("Pendulum-v1", 2)
    environments.reset(seed=5)
    environments.step(np.zeros((2, 1), np.float32))
    state = saved_and_loaded(environments.state_dict())
    assert not environments.restores_exactly
    starts = []
    for continued in (environments, make("Pendulum-v1", 2)):
        with pytest.warns(UserWarning, match="episodes in progress restart"):
            continued.load_state_dict(state)
        starts.append(continued.observations)
    np.testing.assert_array_equal(*starts)
    with pytest.raises(ValueError, match="of Pendulum-v1; these sub-environments are Mountain"):
        make("MountainCarContinuous-v0", 2).load_state_dict(state)


class Nested(gymnasium.Env):
    """Observes a dictionary; its actions are as the test wants."""

    observation_space = spaces.Dict({"image": spaces.Box(0.0, 1.0, (2, 3)), "mode": spaces.Discrete(4)})

    def __init__(self, action_space: spaces.Space) -> None:
        self.action_space = action_space

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        return {"image": np.full((2, 3), 0.5, np.float32), "mode": np.int64(2)}, {}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        return self.reset()[0], float(action.sum()), False, False, {}


@pytest.fixture
def nested(request: pytest.FixtureRequest) -> Iterator[str]:
    """The id of Nested, registered with the action space that the test gives."""
    gymnasium.register("Nested-v0", entry_point=lambda: Nested(request.param))
    environment_spaces.cache_clear()
    yield "Nested-v0"
    del gymnasium.registry["Nested-v0"]
    environment_spaces.cache_clear()
    _limits.pop("Nested-v0", None)


@pytest.mark.parametrize("nested", [spaces.Box(-1.0, 2.0, (2,))], indirect=True)
def test_fallback_flattens_observations(nested: str) -> None:
    environments = make(nested, 3)
    assert environment_spaces(nested).observation_dim == 10
    assert environments.observation_space.shape == (3, 10)
    observations, _ = environments.reset(seed=0)
    np.testing.assert_array_equal(observations, np.tile([0.5] * 6 + [0.0, 0.0, 1.0, 0.0], (3, 1)))
    assert environments.step(np.ones((3, 2), np.float32))[1].tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("nested", [spaces.Box(-1.0, 2.0, (2,))], indirect=True)
def test_an_environment_without_a_time_limit_is_cut_off_and_that_is_said_once(nested: str) -> None:
    words = "Nested-v0 states no time limit: episodes that do not end by themselves are cut off after 1000 steps"
    with pytest.warns(UserWarning, match=words):
        make(nested, 1)
    assert environment_spaces(nested).max_episode_steps is None
    limit_episodes(nested, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        environments = make(nested, 2)
    environments.reset(seed=0)
    cut = [environments.step(np.ones((2, 2), np.float32))[3].tolist() for _ in range(6)]
    assert cut == [[False, False], [False, False], [True, True]] * 2


def test_a_time_limit_of_the_environments_own_counts() -> None:
    with pytest.raises(InputError, match="Hopper-v5 has a time limit of its own, 1000 steps"):
        limit_episodes("Hopper-v5", 10)


@pytest.mark.parametrize("nested", [spaces.Box(-1.0, 2.0, (2,))], indirect=True)
def test_a_reward_in_an_array_of_one_element_is_a_number(nested: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_episodes(nested, 3)
    environments = make(nested, 2)
    environments.reset(seed=0)
    for reward, answer in ((np.array([2.5]), 2.5), (np.float32(0.5), 0.5)):
        monkeypatch.setattr(Nested, "step", lambda self, _, reward=reward: (self.reset()[0], reward, False, False, {}))
        assert environments.step(np.ones((2, 2), np.float32))[1].tolist() == [answer, answer]
    monkeypatch.setattr(Nested, "step", lambda self, _: (self.reset()[0], np.zeros(2), False, False, {}))
    with pytest.raises(InputError, match=r"Nested-v0: gave a reward of shape \(2,\)"):
        environments.step(np.ones((2, 2), np.float32))


@pytest.mark.parametrize("nested", [spaces.Box(-1.0, 2.0, (2,))], indirect=True)
@pytest.mark.parametrize("what", ["step", "reset"])
def test_what_an_environment_raises_is_one_line_that_says_where(nested: str, what: str, monkeypatch) -> None:
    limit_episodes(nested, 3)
    environments = make(nested, 2)
    environments.reset(seed=0)

    def fault(*_: object, **__: object) -> None:
        raise RuntimeError("motor fault")

    monkeypatch.setattr(Nested, what, fault)
    with pytest.raises(InputError, match=rf"Nested-v0: {what} raised RuntimeError: motor fault \(.*environments.py, line"):
        environments.step(np.ones((2, 2), np.float32)) if what == "step" else environments.reset()

    def leave(*_: object, **__: object) -> None:
        sys.exit(3)

    monkeypatch.setattr(Nested, what, leave)
    with pytest.raises(ExitedError, match=rf"Nested-v0: {what} called sys.exit\(3\) \(.*environments.py, line"):
        environments.step(np.ones((2, 2), np.float32)) if what == "step" else environments.reset()


@pytest.mark.parametrize("nested", [spaces.Box(-1.0, 2.0, (2,))], indirect=True)
def test_an_environment_without_observations_is_refused(nested: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Nested, "observation_space", spaces.Box(-1.0, 1.0, (0,)))
    with pytest.raises(UnusableEnvironmentError, match=r"Nested-v0 has the observation space Box.*, without numbers\."):
        environment_spaces(nested)


@pytest.mark.parametrize(("environment_id", "first"), [("Ant-v5", 27), ("Humanoid-v5", 270), ("HalfCheetah-v5", None)])
def test_forces_of_contacts_are_where_the_environment_says(environment_id: str, first: int | None) -> None:
    found = environment_spaces(environment_id).contact_forces
    assert [*found] == ([] if first is None else [*range(first, first + 78)])
    if first is not None:
        environment = gymnasium.make(environment_id, include_cfrc_ext_in_observation=False)
        assert environment.observation_space.shape == (first,)      # they are the last ones


def test_forces_of_contacts_are_unknown_where_a_wrapper_changes_the_observation(monkeypatch: pytest.MonkeyPatch) -> None:
    wrappers = (WrapperSpec("it", "gymnasium.wrappers:FrameStackObservation", {"stack_size": 2}),)
    spec = replace(gymnasium.spec("Ant-v5"), id="Stacked-v0", additional_wrappers=wrappers)
    monkeypatch.setitem(gymnasium.registry, "Stacked-v0", spec)
    assert environment_spaces("Stacked-v0").observation_dim == 210
    assert environment_spaces("Stacked-v0").contact_forces == ()


@pytest.mark.parametrize("wrapper", ["NormalizeObservation", "NormalizeReward"])
def test_statistics_that_change_with_every_step_are_warned_of(wrapper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrappers = (WrapperSpec("it", f"gymnasium.wrappers:{wrapper}", {}),)
    spec = replace(gymnasium.spec("Pendulum-v1"), id="Drifting-v0", additional_wrappers=wrappers)
    monkeypatch.setitem(gymnasium.registry, "Drifting-v0", spec)
    environment_spaces.cache_clear()
    with pytest.warns(UserWarning, match=f"Drifting-v0 has the wrapper {wrapper}, whose statistics begin anew"):
        environment_spaces("Drifting-v0")


@pytest.mark.parametrize("nested", [spaces.Box(-1.0, 2.0, (2,))], indirect=True)
def test_observations_must_have_a_fixed_size(nested: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Nested, "observation_space", spaces.Sequence(spaces.Box(-1.0, 1.0)))
    with pytest.raises(UnusableEnvironmentError, match=r"observation space Sequence.*fixed size is needed"):
        environment_spaces(nested)


class Vector(Nested):
    """Observes a vector, which may be of another shape than its space says, as the test wants."""

    observation_space = spaces.Box(-1.0, 1.0, (2,))
    answers: tuple = ()

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        return self.answers[0]

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_space.contains(action.astype(self.action_space.dtype)), action
        return self.answers[1], 0.0, False, False, {}


@pytest.fixture
def vector(request: pytest.FixtureRequest) -> Iterator[str]:
    """The id of Vector, registered with the action space that the test gives, and a time limit of 2."""
    gymnasium.register("Vector-v0", entry_point=lambda: Vector(request.param), max_episode_steps=2)
    environment_spaces.cache_clear()
    yield "Vector-v0"
    del gymnasium.registry["Vector-v0"]
    environment_spaces.cache_clear()


GOOD = np.zeros(2, np.float32)


@pytest.mark.filterwarnings("ignore")                               # gymnasium's, of the same
@pytest.mark.parametrize("vector", [spaces.Box(-1.0, 1.0, (2,))], indirect=True)
@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (((GOOD[:1], {}), GOOD), r"gave an observation of shape \(1,\), its space says \(2,\)"),
        (((GOOD, {}), GOOD[:1]), r"gave an observation of shape \(1,\), its space says \(2,\)"),
        (((GOOD, {}), 0.5), r"gave an observation of shape \(\), its space says \(2,\)"),
        ((GOOD, GOOD), r"its reset returns a value of type ndarray, wanted \(observation, info\)"),
        (((GOOD, {}, 0), GOOD), r"its reset returns a tuple of 3, wanted \(observation, info\)"),
    ],
    ids=["reset", "step", "number", "old reset", "three"],
)
def test_an_observation_of_another_size_is_refused(vector: str, answers: tuple, message: str, monkeypatch) -> None:
    monkeypatch.setattr(Vector, "answers", answers)
    environments = make(vector, 2)

    def play() -> None:
        environments.reset(seed=0)
        environments.step(np.zeros((2, 2), np.float32))

    with pytest.raises(InputError, match=f"Vector-v0: {message}"):
        play()


BOUNDS = np.array([-0.1, 0.3]), np.array([0.3, 1000.0])


@pytest.mark.parametrize("vector", [spaces.Box(*BOUNDS, dtype=np.float64)], indirect=True)
def test_no_action_goes_beyond_bounds_that_float32_does_not_hold(vector: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Vector, "answers", ((GOOD, {}), GOOD))
    found = environment_spaces(vector)
    assert (BOUNDS[0] <= found.action_low).all()
    assert (found.action_high <= BOUNDS[1]).all()
    np.testing.assert_allclose([found.action_low, found.action_high], BOUNDS, rtol=1e-7)
    environments = make(vector, 2)
    environments.reset(seed=0)
    scale, bias = (found.action_high - found.action_low) / 2, (found.action_high + found.action_low) / 2
    environments.step(np.stack([bias - scale, bias + scale]))       # whose products round further; asserts in Vector


def test_bounds_that_float32_holds_stay_as_they_are() -> None:
    for environment_id in ("HumanoidStandup-v5", "HalfCheetah-v5"):
        found, space = environment_spaces(environment_id), gymnasium.make(environment_id).action_space
        np.testing.assert_array_equal([found.action_low, found.action_high], [space.low, space.high])


def test_an_environment_in_place_of_its_id_is_refused() -> None:
    with pytest.raises(UnusableEnvironmentError, match="environment_id: is an environment, wanted its id"):
        environment_spaces(gymnasium.make("Pendulum-v1"))


def test_what_making_an_environment_raises_is_one_line() -> None:
    for broken, words in ((lambda: 1 / 0, "raised ZeroDivisionError"), (lambda: sys.exit(3), r"called sys.exit\(3\)")):
        gymnasium.register("Broken-v0", entry_point=broken)
        with pytest.raises(UnusableEnvironmentError, match=rf"Broken-v0: making it {words}.*environments.py"):
            make("Broken-v0", 1)
        del gymnasium.registry["Broken-v0"]


@pytest.mark.parametrize(
    ("ids", "one"),
    [
        (("Point-v0", "mine:Point-v0"), True),
        (("mine:Point-v0", "mine:Point-v0"), True),
        (("mine:Point-v0", "yours:Point-v0"), False),
        (("mine:Point-v0", "mine:Point-v1"), False),
        ((), True),
    ],
)
def test_an_id_with_its_module_is_the_same_environment(ids: tuple[str, ...], one: bool) -> None:
    assert are_one(ids) is one


def test_an_id_without_a_version_is_the_latest() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                             # gymnasium's, which says the same
        assert resolved("Walker2d") == "Walker2d-v5"
    assert resolved("Walker2d-v5") == "Walker2d-v5"


@pytest.mark.parametrize(
    ("nested", "message"),
    [
        pytest.param(spaces.Box(np.array([-1, 0.0]), np.array([1, 0.0])), "action bounds, 0, in dimension 1", id="equal"),
        pytest.param(spaces.Discrete(3), r"Discrete\(3\).*one-dimensional Box", id="discrete"),
        pytest.param(spaces.Box(-3, 3, (2,), np.int32), r"int32\); a one-dimensional Box of continuous", id="integers"),
        pytest.param(spaces.Box(-1.0, 1.0, (2, 2)), "one-dimensional Box", id="matrix"),
        pytest.param(spaces.Box(-np.inf, np.inf, (2,)), "from -inf to inf; finite bounds are needed", id="unbounded"),
    ],
    indirect=["nested"],
)
def test_actions_must_be_bounded_vectors(nested: str, message: str) -> None:
    with pytest.raises(UnusableEnvironmentError, match=message):
        make(nested, 1)


@pytest.mark.parametrize(
    ("environment_id", "message"),
    [
        pytest.param("HalfChetah-v5", "HalfCheetah-v5", id="misspelt"),
        pytest.param("halfcheetah-v5", "HalfCheetah-v5", id="lower case"),
        pytest.param("HalfCheetah-v99", "HalfCheetah-v5", id="unknown version"),
        pytest.param("HalfCheetah-v3", "HalfCheetah-v5", id="removed version"),
        pytest.param("Xyzzy/Plugh-v0", "Batched tasks are Ant-v5", id="nothing near"),
        pytest.param("no_such_module_here:Task-v0", "no_such_module_here", id="unknown module"),
        pytest.param("", "not an environment", id="empty"),
        pytest.param("CartPole-v1", r"Discrete\(2\)", id="discrete actions"),
    ],
)
def test_unusable_environments_are_explained(environment_id: str, message: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)         # gymnasium's, of old versions
        with pytest.raises(UnusableEnvironmentError, match=message) as raised:
            make(environment_id, 1)
    assert isinstance(raised.value, ValueError)


def test_missing_dependency_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(environment_id: str) -> None:
        raise gymnasium.error.DependencyNotInstalled('Box2D is not installed, run `pip install "gymnasium[box2d]"`')

    monkeypatch.setattr(gymnasium, "make", lacking)
    with pytest.raises(UnusableEnvironmentError, match=r"BipedalWalker-v3 lacks a dependency.*gymnasium\[box2d\]"):
        make("BipedalWalker-v3", 1)


@pytest.mark.parametrize("environment_id", ["HalfCheetah-v5", "Pendulum-v1"])
@pytest.mark.parametrize(
    ("use", "message"),
    [
        pytest.param(lambda env: env.step(np.zeros((3, 1))), r"actions have the shape \(3, 1\)", id="actions"),
        pytest.param(
            lambda env: env.step(np.zeros(env.action_space.shape), np.ones(2)), "active is float64", id="active"
        ),
        pytest.param(lambda env: env.reset(seed=[1]), "1 seeds; 2 are needed", id="seeds"),
        pytest.param(lambda env: env.reset(options={"reset_mask": [True, True]}), "is list", id="mask type"),
        pytest.param(lambda env: env.reset(options={"reset_mask": np.zeros(2, bool)}), "selects no", id="empty mask"),
        pytest.param(lambda env: make(env.spec.id, 0), "num_envs is 0", id="num_envs"),
    ],
)
def test_wrong_arguments_are_explained(environment_id: str, use, message: str) -> None:
    environments = make(environment_id, 2)
    environments.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        use(environments)


def test_unbatched_task_and_missing_reset_are_explained() -> None:
    with pytest.raises(ValueError, match="no batched task for 'Pendulum-v1'"):
        BatchedMujoco("Pendulum-v1", 1)
    with pytest.raises(ValueError, match="threads is 0"):
        BatchedMujoco("HalfCheetah-v5", 1, threads=0)
    environments = BatchedMujoco("HalfCheetah-v5", 2)
    with pytest.raises(gymnasium.error.ResetNeeded, match="Sub-environment 0 was never reset"):
        environments.step(np.zeros((2, 6), np.float32))


@pytest.mark.parametrize(
    ("environment_id", "observation_dim", "high", "max_episode_steps", "can_terminate"),
    [
        ("HalfCheetah-v5", 17, [1.0] * 6, 1000, False),
        ("Hopper-v5", 11, [1.0] * 3, 1000, True),
        ("Pusher-v5", 23, [2.0] * 7, 100, False),
        ("Pendulum-v1", 3, [2.0], 200, False),
        ("MountainCarContinuous-v0", 2, [1.0], 999, None),
    ],
)
def test_spaces(
    environment_id: str, observation_dim: int, high: list[float], max_episode_steps: int, can_terminate: bool | None
) -> None:
    found = environment_spaces(environment_id)
    assert found is environment_spaces(environment_id)
    assert (found.environment_id, found.observation_dim) == (environment_id, observation_dim)
    assert (found.max_episode_steps, found.can_terminate) == (max_episode_steps, can_terminate)
    assert found.action_low.dtype == found.action_high.dtype == np.float32
    assert found.action_high.tolist() == high
    assert found.action_low.tolist() == [-bound for bound in high]
    assert found.action_dim == len(high)


@pytest.mark.parametrize("environment_id", TASKS)
def test_can_terminate_says_whether_the_task_defines_a_terminal_state(environment_id: str) -> None:
    task = TASKS[environment_id]
    assert task.can_terminate == ("terminated" in vars(task))


NEWCOMER = '''
import gymnasium
import numpy as np
from gymnasium.envs.mujoco.inverted_pendulum_v5 import InvertedPendulumEnv
from lightning_bc.environments import Task

gymnasium.register("Newcomer-v0", InvertedPendulumEnv, max_episode_steps=20)


class Newcomer(Task):
    environment_id = "Newcomer-v0"
    can_terminate = True

    def terminated(self):
        return np.abs(self.joint_positions[:, 1]) > 0.2

    def observe(self, observations):
        observations[:, :2], observations[:, 2:] = self.joint_positions, self.joint_velocities

    def rewards(self, actions, x_velocity, terminated):
        return 1.0 * ~terminated

    def start_state(self, generator):
        return self._uniform_positions(generator, 0.01), self._uniform_velocities(generator, 0.01)
'''
"""A module of another package, with an environment and its task."""


def test_a_task_of_another_package_is_played_once_its_module_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_newcomers_package.py").write_text(NEWCOMER)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        environments = make("a_newcomers_package:Newcomer-v0", 3)
        assert isinstance(environments, BatchedMujoco)
        assert isinstance(make("Newcomer-v0", 1), BatchedMujoco)
        reference = gymnasium_environments("Newcomer-v0", 3)
        np.testing.assert_array_equal(environments.reset(seed=5)[0], reference.reset(seed=5)[0])
        for actions in random_actions(environments, 50):
            found, wanted = environments.step(actions), reference.step(actions)
            for part, wanted_part in zip(found[:4], wanted[:4], strict=True):
                np.testing.assert_array_equal(part, wanted_part)
    finally:
        del gymnasium.registry["Newcomer-v0"], TASKS["Newcomer-v0"]


def test_a_task_of_what_is_not_mujoco_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(Task):
        can_terminate = False

    monkeypatch.setitem(TASKS, "Pendulum-v1", Wrong)
    with pytest.raises(TypeError, match="Wrong is a task of Pendulum-v1, which is no MujocoEnv"):
        BatchedMujoco("Pendulum-v1", 1)


def test_loading_models_is_quiet(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)                                     # where MuJoCo would write MUJOCO_LOG.TXT
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BatchedMujoco("HalfCheetah-v5", 1)
        environment_spaces.cache_clear()
        environment_spaces("HalfCheetah-v5")
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_other_warnings_of_mujoco_are_passed_on() -> None:
    before = mujoco.get_mju_user_warning()
    with quiet_model_loading():
        handle = mujoco.get_mju_user_warning()
        with pytest.warns(RuntimeWarning, match="MuJoCo: something else"):
            handle("something else")
    assert mujoco.get_mju_user_warning() is before


def test_mujoco_measures_no_durations_unless_somebody_has_set_a_clock():
    make("InvertedPendulum-v5", 1)
    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    data = mujoco.MjData(model)
    mujoco.mj_step(model, data)
    assert data.timer[0].number == 1
    assert {timer.duration for timer in data.timer} == {0.0}
    before = mujoco.get_mjcb_time()
    try:
        mujoco.set_mjcb_time(lambda: 1.0)
        clock = mujoco.get_mjcb_time()
        stop_clock()
        assert mujoco.get_mjcb_time() is clock
    finally:
        mujoco.set_mjcb_time(before)
