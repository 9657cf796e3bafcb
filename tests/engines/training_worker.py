"""The same training in one process and in several: run by test_distributed.py, here or under torchrun.

    torchrun --nproc-per-node 2 tests/engines/training_worker.py CHECKPOINT OTHER_CHECKPOINT UNTIED_CHECKPOINT OUT

Writes what came of each case to OUT: metrics, and weights put together.
"""

import sys
from functools import partial
from pathlib import Path

import torch

from reference.config import GRPOConfig
from reference.engines.chat import TokenizedExample
from reference.engines.distributed import Process
from reference.engines.learner import Learner, frozen_policy
from reference.records import Completion, RolloutGroup
from reference.stages.train_grpo import grpo_step
from reference.stages.train_sft import sft_step

# (prompt, answer) lengths: eight ragged samples, then three (one process has one more), then one (the other has none)
BATCHES = [[(3, 17), (9, 2), (1, 1), (12, 30), (4, 8), (2, 45), (7, 5), (5, 11)], [(3, 9), (20, 40), (5, 5)], [(4, 6)]]
REWARDS = [(1.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.0, 1.0, 1.0), (0.0, 0.0, 0.0)]
PROMPTS = [[5, 9, 33], [700], [41, 42, 43, 44, 45, 46, 47, 48], [8, 300]]
GRPO = GRPOConfig(num_rollouts=3, mini_batch_size=3, kl_coef=0.05, temperature=0.7, max_tokens_per_batch=45)
OPTIONS = {
    "padded": {},
    "packed": {"packing": True},
    "checkpointed": {"activation_checkpointing": True},
}


def words(draw, count):
    return tuple(torch.randint(3, 768, (count,), generator=draw).tolist())


def sft_batches():
    draw = torch.Generator().manual_seed(0)
    return [[TokenizedExample(words(draw, p + a), p) for p, a in batch] for batch in BATCHES]


def rollout_groups():
    """Responses of 1 to 16 random tokens; the second mini-batch has a single group."""
    draw = torch.Generator().manual_seed(1)
    groups = []
    for at, rewards in enumerate(REWARDS):
        ids = [words(draw, length) for length in torch.randint(1, 17, (len(rewards),), generator=draw).tolist()]
        responses = tuple(Completion(one, "", True, (-1.0,) * len(one)) for one in ids)
        groups.append(RolloutGroup(f"p{at}", responses, rewards))
    return groups


def learner_of(checkpoint, process, dtype, **options):
    optimizer = {"lr": 1e-4, "betas": (0.9, 0.95), "weight_decay": 0.1, "max_grad_norm": 1.0}
    learner = Learner(checkpoint, process, **optimizer, **options, dtype=dtype)
    check_shares(list(learner.policy.parameters()), process.size)
    return learner


def check_shares(weights, size):
    """Each process holds its part of the weights and no more."""
    held = sum((weight.to_local() if size > 1 else weight).numel() for weight in weights)
    everything = sum(weight.numel() for weight in weights)
    assert abs(held * size / everything - 1) < 0.01, f"{held} of {everything} weights in one of {size} processes"


def outcome(learner, metrics):
    return {"metrics": metrics, "weights": {name: weight.clone() for name, weight in learner.policy.named_weights()}}


def train_sft(learner, batches):
    return [sft_step(learner, batch, max_tokens=60) for batch in batches]


def train(checkpoint, other, untied, out, process):
    """Every case; the results go to OUT/results.pt."""
    found = {}
    for dtype in (torch.float64, torch.float32):
        for name, options in OPTIONS.items():
            learner = learner_of(checkpoint, process, dtype, **options)
            found["sft", name, dtype] = outcome(learner, train_sft(learner, sft_batches()))
            learner = learner_of(checkpoint, process, dtype, **options)
            reference = frozen_policy(other, process.device).to(dtype)
            metrics = [grpo_step(learner, reference, PROMPTS, rollout_groups(), GRPO) for _ in range(2)]
            found["grpo", name, dtype] = outcome(learner, metrics)
        learner = learner_of(untied, process, dtype)
        found["sft", "untied", dtype] = outcome(learner, train_sft(learner, sft_batches()))
        learner, reference = learner_of(untied, process, dtype), frozen_policy(other, process.device).to(dtype)
        metrics = [grpo_step(learner, reference, PROMPTS, rollout_groups(), GRPO) for _ in range(2)]
        found["grpo", "untied", dtype] = outcome(learner, metrics)
    for what, steps in (("sft", sft_steps()), ("grpo", grpo_steps(other, process))):
        found["resumed", what] = resumed(checkpoint, out / f"{what}.pt", process, steps)
    learner = learner_of(checkpoint, process, torch.float32)
    train_sft(learner, sft_batches())
    learner.save_state(out / "after3.pt", {"steps": 3})
    found["going on"] = train_sft(learner, sft_batches())
    if process.is_main:
        torch.save(found, out / "results.pt")


def sft_steps():
    return [partial(sft_step, batch=batch, max_tokens=60) for batch in sft_batches()]


def grpo_steps(other, process):
    reference = frozen_policy(other, process.device)
    return [lambda learner: grpo_step(learner, reference, PROMPTS, rollout_groups(), GRPO)] * 2


def resumed(checkpoint, state, process, steps):
    """One step, a save, another process's life, and the rest."""
    first = learner_of(checkpoint, process, torch.float32)
    steps[0](first)
    first.save_state(state, {"steps": 1})
    second = learner_of(checkpoint, process, torch.float32)
    assert second.load_state(state) == {"steps": 1}
    return outcome(second, [step(second) for step in steps[1:]])


if __name__ == "__main__":
    train(*sys.argv[1:4], Path(sys.argv[4]), Process.of_launch(2))
