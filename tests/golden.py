"""Does a change of the code change a number? Small fixed runs of every strategy, written down before and compared after.

    python tests/golden.py write FOLDER            at the commit to compare with
    python tests/golden.py compare FOLDER [NAME]   after the change, on the same machine

Each run is ``fit`` as a user calls it, on the CPU with one thread. Compared bit by bit: SHA-256 of the final parameters
(of each tensor, sorted, so that names do not matter), the curve, and the returns of four test-bank episodes with
deterministic and with sampled actions. Floating point differs from one kind of processor to the next, so the figures are
never compared between machines, and pytest does not run this.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import torch

REPOSITORY = Path(__file__).parents[1]
EXPERT = REPOSITORY / "checkpoints/experts/HalfCheetah-v5.pt"
PAIRS = 20_000

OFFLINE = "--data.path {folder}/pairs.pt --trainer.max_steps 120 --rollouts.eval_freq 40 --rollouts.episodes 2"
ONLINE = (
    "--model.total_environment_steps 1600 --model.learning_starts 800 --model.num_envs 4 --model.updates_per_step 0.5 "
    "--rollouts.eval_freq 400 --rollouts.episodes 2"
)
DEMONSTRATED = "--data.path {folder}/pairs.pt --data.episodes 4 --data.validation_fraction 0"
RUNS = {
    **{
        name: f"--config configs/{name}.yaml {OFFLINE}"
        for name in ("mse", "gaussian", "gmm", "diffusion", "flow_matching", "autoregressive")
    },
    "dagger": f"--config configs/dagger.yaml {OFFLINE} --config {{folder}}/rounds.yaml",
    "sac": f"--config configs/sac.yaml {ONLINE}",
    "gail": f"--config configs/gail.yaml {ONLINE} {DEMONSTRATED}",
    "airl": f"--config configs/airl.yaml {ONLINE} {DEMONSTRATED}",
    # episodes that terminate: absorbing states, and episodes of unequal length
    "gail_hopper": f"--config configs/gail.yaml {ONLINE} --data.path {{folder}}/hopper.pt --data.validation_fraction 0",
    "mse_hopper": f"--config configs/mse.yaml {OFFLINE.replace('pairs.pt', 'hopper.pt')} --data.validation_fraction 0",
}
ROUNDS = f"""
trainer:
  callbacks:
    - class_path: lightning_bc.callbacks.DAgger
      init_args: {{expert: {EXPERT}, round_every: 50, rounds: 2, beta: 0.5}}
data:
  episodes: null
"""
CURVE = ("rollout/return_mean", "rollout/return_std", "train/loss", "train/critic_loss", "validation/loss")


def main() -> None:
    mode, folder = sys.argv[1], Path(sys.argv[2]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    make_inputs(folder)
    differ = []
    for name in sys.argv[3:] or RUNS:
        now = measure(name, folder)
        path = folder / f"{name}.json"
        if mode == "write":
            path.write_text(json.dumps(now, indent=1) + "\n")
            print(f"{name:15} {now['parameters'][:16]} return {now['returns'][0]:.4f}", flush=True)
            continue
        before = json.loads(path.read_text())
        keys = [key for key in before if before[key] != now[key]]
        print(f"{name:15} {'equal' if not keys else 'DIFFERS in ' + ', '.join(keys)}", flush=True)
        differ += keys
    sys.exit(bool(differ))


def make_inputs(folder: Path) -> None:
    """Demonstrations of the cheetah, and random ones of Hopper whose episodes terminate; kept between calls."""
    (folder / "rounds.yaml").write_text(ROUNDS)
    if not (folder / "pairs.pt").exists():
        call(folder, "collect", "--env", "HalfCheetah-v5", "--expert", str(EXPERT), "--pairs", str(PAIRS), "--output",
             str(folder / "pairs.pt"))  # fmt: skip
        content = torch.load(folder / "pairs.pt")
        kept = ("observations", "actions", "mean_reward", "std_reward", "episode_lengths", "random_returns")
        kept += ("expert_returns",)
        torch.save({key: content[key] for key in kept}, folder / "pairs.pt")
    if not (folder / "hopper.pt").exists():
        lengths = torch.arange(20, 60)
        generator = torch.Generator().manual_seed(0)
        torch.save(
            {
                "observations": torch.randn(int(lengths.sum()), 11, generator=generator),
                "actions": torch.rand(int(lengths.sum()), 3, generator=generator) * 2 - 1,
                "mean_reward": 1000.0,
                "std_reward": 100.0,
                "episode_lengths": lengths,
                "random_returns": torch.full((100,), 20.0),
                "metadata": {"environment_id": "Hopper-v5"},
            },
            folder / "hopper.pt",
        )


def measure(name: str, folder: Path) -> dict:
    """What one run gives."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    work = folder / "runs" / f"{name}-{os.getpid()}"
    work.mkdir(parents=True)
    for linked in ("configs", "checkpoints"):
        (work / linked).mkdir()
    (work / "configs").rmdir()
    (work / "configs").symlink_to(REPOSITORY / "configs")
    (work / "checkpoints/experts").symlink_to(REPOSITORY / "checkpoints/experts")
    call(work, "fit", *RUNS[name].format(folder=folder).split(), "--trainer.enable_progress_bar", "false")
    (run,) = (work / "lightning_logs").iterdir()
    state = torch.load(work / "checkpoints" / run.name / "last.ckpt", weights_only=True)["state_dict"]
    floats = [tensor for tensor in state.values() if tensor.is_floating_point()]
    digests = sorted(hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest() for tensor in floats)
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    tags = [tag for tag in CURVE if tag in events.Tags()["scalars"]]
    results = json.loads((run / "results.json").read_text())
    return {
        "parameters": hashlib.sha256("".join(digests).encode()).hexdigest(),
        "curve": {tag: [[event.step, event.value] for event in events.Scalars(tag)] for tag in tags},
        "returns": results["returns"][:4],
        "sampled_returns": results["sampled_returns"][:4],
        "axes": [results[key] for key in ("optimizer_steps", "environment_steps", "expert_queries", "pairs")],
    }


def call(folder: Path, *args: str) -> None:
    """Run a command in ``folder``, one thread, on this checkout's code."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-m", "lightning_bc", *args], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(args)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


if __name__ == "__main__":
    main()
