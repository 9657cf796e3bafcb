"""Training throughput on a GPU, with a random model of Qwen2.5-0.5B's shape at the paper's batch sizes.

    python tests/gpu/test_throughput.py

prints, for the SFT step and the GRPO update: tokens per second, the share of the GPU's bf16 peak (6 floating-point
operations a parameter and token for forward and backward, 2 for a forward), peak memory; with and without the lean
log-probabilities, packing and activation checkpointing; and a bare forward-backward on the same tokens.
"""

import argparse
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from reference.config import GRPOConfig, SFTConfig
from reference.engines.chat import Chat, TokenizedExample
from reference.engines.distributed import Process
from reference.engines.learner import Learner, compute_type, frozen_policy, save_checkpoint
from reference.engines.memory import SHAPES, Shape
from reference.offline.tiny_model import BASE_CHECKPOINT
from reference.paper import tokens
from reference.records import Completion, RolloutGroup
from reference.stages.train_grpo import grpo_step
from reference.stages.train_sft import sft_step

QWEN = SHAPES["Qwen/Qwen2.5-0.5B-Instruct"]
SMALL = Shape(2, 64, 128, 2, 1, 9000)
PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12}  # dense bf16, by NVIDIA's data sheets
ROUNDS = 5


@dataclass(frozen=True)
class Variant:
    """A way to train."""

    name: str
    packing: bool = True
    checkpointing: bool = False
    lean: bool = True


VARIANTS = (
    Variant("as in the presets"),
    Variant("padded", packing=False),
    Variant("checkpointed", checkpointing=True),
    Variant("whole table of logits", lean=False),
)


def make_checkpoint(shape, folder):
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=shape.words,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    model = Qwen2ForCausalLM(config)
    save_checkpoint(model, Chat.from_checkpoint(BASE_CHECKPOINT), folder, dict(model.named_parameters()))
    return folder


@contextmanager
def head_of(variant):
    """Without `lean`, the head makes the whole [N, V] table, as most trainers do."""
    small = tokens.SMALL_VOCABULARY
    tokens.SMALL_VOCABULARY = small if variant.lean else 10**9
    try:
        yield
    finally:
        tokens.SMALL_VOCABULARY = small


def ids_of(count, draw):
    return tuple(torch.randint(3, 768, (count,), generator=draw).tolist())


def sft_batch(settings, scale):
    """Prompts of about 100 tokens and traces of about 243, as in Table 9."""
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(int(130 * scale), int(550 * scale), (settings.batch_size,), generator=draw).tolist()
    return [TokenizedExample(ids_of(length, draw), int(100 * scale)) for length in lengths]


def rollouts(settings, scale):
    """Responses of 100 to 500 tokens to prompts of 100."""
    draw = torch.Generator().manual_seed(1)
    prompts, groups = [], []
    for at in range(settings.batch_size):
        prompts.append(ids_of(int(100 * scale), draw))
        lengths = torch.randint(int(100 * scale), int(500 * scale), (settings.num_rollouts,), generator=draw).tolist()
        responses = tuple(Completion(ids_of(n, draw), "", True, (-1.0,) * n) for n in lengths)
        groups.append(RolloutGroup(str(at), responses, tuple(float(n % 2) for n in lengths)))
    return prompts, groups


def learner_of(checkpoint, process, variant, settings):
    return Learner(
        checkpoint,
        process,
        lr=settings.lr,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        packing=variant.packing,
        activation_checkpointing=variant.checkpointing,
    )


def timed(device, step, rounds):
    """Seconds of a step (the median of `rounds`), and the peak memory in bytes (0 on a CPU)."""
    step()
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(rounds):
        began = time.monotonic()
        step()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.monotonic() - began)
    return sorted(seconds)[rounds // 2], torch.cuda.max_memory_allocated() if on_gpu else 0


def bare_step(model, sequences, device):
    """Forward and backward of one sequence after the other, head on all tokens in chunks, nothing else."""

    def step():
        for ids in sequences:
            ids_T = torch.tensor(ids, device=device)
            with compute_type(device):
                hidden_TD = model.model(input_ids=ids_T[None], use_cache=False).last_hidden_state[0, :-1]
                loss = -tokens.head_logprobs(hidden_TD, model.get_output_embeddings().weight, ids_T[1:]).mean()
            loss.backward()
        model.zero_grad(set_to_none=True)

    return step


def measure(shape, process, scale=1.0, rounds=ROUNDS, sft=SFTConfig(), grpo=GRPOConfig()):
    """Rows of (what, tokens per second, model FLOP utilisation or None, peak GiB)."""
    device = process.device
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    peak = next((flops for chip, flops in PEAK_FLOPS.items() if chip in name), None)
    rows = []

    def add(what, count, operations, step):
        seconds, memory = timed(device, step, rounds)
        used = operations * shape.parameters * count / seconds / peak if peak else None
        rows.append((what, count / seconds, used, memory / 2**30))

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = make_checkpoint(shape, Path(folder) / "checkpoint")
        batch, (prompts, groups) = sft_batch(sft, scale), rollouts(grpo, scale)
        count = sum(len(example.token_ids) for example in batch)
        of_rollouts = sum(
            len(prompt) + len(response.token_ids)
            for prompt, group in zip(prompts, groups, strict=True)
            for response in group.responses
        )
        for variant in VARIANTS:
            with head_of(variant):
                learner = learner_of(checkpoint, process, variant, sft)
                step = partial(sft_step, learner, batch, sft.max_tokens_per_batch)
                add(f"SFT step, {variant.name}", count, 6, step)
                learner = learner_of(checkpoint, process, variant, grpo)
                reference = frozen_policy(checkpoint, device, variant.packing)
                step = partial(grpo_step, learner, reference, prompts, groups, grpo)
                add(f"GRPO updates, {variant.name}", of_rollouts, 10, step)  # two forwards, one forward and backward
                del learner, reference, step
        model = learner_of(checkpoint, process, VARIANTS[1], sft).policy.model
        add("bare forward-backward", count, 6, bare_step(model, [example.token_ids for example in batch], device))
    return rows


def show(rows):
    for what, speed, used, memory in rows:
        share = "" if used is None else f"{100 * used:6.1f} % of peak"
        print(f"{what:40}{speed:12.0f} tokens/s {share:>18}{memory:8.1f} GiB", flush=True)


@pytest.mark.gpu
def test_the_paper_s_batches_fit_and_come_near_a_bare_loop():
    rows = measure(QWEN, Process(torch.device("cuda")))
    show(rows)
    speed, memory = {row[0]: row[1] for row in rows}, {row[0]: row[3] for row in rows}
    assert speed["SFT step, as in the presets"] >= 0.8 * speed["bare forward-backward"]
    assert memory["SFT step, as in the presets"] < memory["SFT step, whole table of logits"]
    assert memory["SFT step, checkpointed"] < memory["SFT step, as in the presets"]


def test_the_benchmark_runs_on_a_cpu_too():
    """What it prints there means nothing; that it runs does."""
    rows = measure(SMALL, Process(), 0.1, rounds=1, grpo=GRPOConfig(batch_size=2, mini_batch_size=1, num_rollouts=2))
    assert len(rows) == 2 * len(VARIANTS) + 1
    assert all(speed > 0 and used is None for _, speed, used, _ in rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Training throughput at Qwen2.5-0.5B's shape.")
    parser.parse_args()
    show(measure(QWEN, Process.of_launch()))
