"""One optimizer step at a time: AdamW, gradient clipping, and a state on disk that an interrupted stage goes on from.

The weights are float32 and stay so: a step of 1e-6 would vanish in bfloat16. On a GPU the forward computes in bfloat16.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from reference.engines.chat import Chat
from reference.engines.policy import Policy, load_causal_lm


class Learner:
    """A policy and its optimizer."""

    def __init__(
        self,
        checkpoint: Path | str,
        device: torch.device,
        *,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        max_grad_norm: float,
    ):
        self.device = device
        self.max_grad_norm = max_grad_norm
        self.lr = lr
        self.policy = Policy(load_causal_lm(checkpoint, torch.float32)).to(device).train()
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=lr, betas=betas, weight_decay=weight_decay)

    def step(self, micro_batches: Sequence, loss_of: Callable[[object], torch.Tensor], lr_scale: float = 1.0) -> float:
        """Add up the gradients of all micro-batches, then take one step; the norm of the gradient before clipping.

        `loss_of(micro_batch)` is that batch's share of the step's loss: the shares add up to the loss, however the step
        is cut into micro-batches.

        Raises:
            ValueError: the gradient is not finite; the weights stay as they were.
        """
        self.optimizer.zero_grad(set_to_none=True)
        for micro_batch in micro_batches:
            with compute_type(self.device):
                loss = loss_of(micro_batch)
            loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        if not torch.isfinite(norm):
            raise ValueError(f"the gradient norm is {norm.item()}; lower the learning rate or look at this step's data")
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * lr_scale
        self.optimizer.step()
        return norm.item()

    def save_state(self, path: Path, progress: dict) -> None:
        """Weights, optimizer and `progress`, by rename."""
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(path.name + ".unfinished")
        state = {"policy": self.policy.state_dict(), "optimizer": self.optimizer.state_dict(), "progress": progress}
        torch.save(state, unfinished)
        os.replace(unfinished, path)

    def load_state(self, path: Path) -> dict | None:
        """Take up a saved state and return its progress; None where there is none."""
        if not path.exists():
            return None
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
        return state["progress"]

    def save_checkpoint(self, path: Path, chat: Chat) -> None:
        """A folder that `from_pretrained` reads: weights, configuration, tokenizer, chat template, end ids."""
        save_checkpoint(self.policy.model, chat, path)


def compute_type(device: torch.device) -> torch.autocast:
    """bfloat16 products over float32 weights on a GPU, float32 throughout on a CPU."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type != "cpu")


def save_checkpoint(model, chat: Chat, path: Path) -> None:
    """Write a model and its tokenizer, whole or not at all."""
    unfinished = path.with_name(path.name + ".unfinished")
    model.generation_config.eos_token_id = list(chat.end_ids)
    model.save_pretrained(unfinished)
    chat.tokenizer.save_pretrained(unfinished)
    if path.exists():  # left by a stage that was killed between this rename and its receipt
        shutil.rmtree(path)
    unfinished.replace(path)


def frozen_policy(checkpoint: Path | str, device: torch.device) -> Policy:
    """pi_ref: the same wrapper around weights that never move."""
    return Policy(load_causal_lm(checkpoint, torch.float32)).to(device).eval().requires_grad_(False)
