"""One optimizer step at a time: AdamW, gradient clipping, and a state on disk that an interrupted stage goes on from.

The weights are float32 and stay so: a step of 1e-6 would vanish in bfloat16. On a GPU the forward computes in bfloat16.
With several processes each holds a shard of weights, gradients and moments, and takes its turns of every step.
"""

import gc
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from reference.engines.batches import Turn, turns_of
from reference.engines.chat import Chat
from reference.engines.distributed import Process, sharded_as, whole
from reference.engines.policy import Policy, load_causal_lm

Loss = Callable[[Turn], tuple[torch.Tensor, Mapping[str, float | torch.Tensor]]]


class Learner:
    """A policy and its optimizer."""

    def __init__(
        self,
        checkpoint: Path | str,
        process: Process,
        *,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        max_grad_norm: float,
        packing: bool = False,
        activation_checkpointing: bool = False,
        dtype: torch.dtype = torch.float32,
    ):
        self.process = process
        self.device = process.device
        self.max_grad_norm = max_grad_norm
        self.lr = lr
        model = load_causal_lm(checkpoint, dtype)
        if activation_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.policy = Policy(model, packing).to(self.device).train()
        process.shard(self.policy, self.policy.layers)
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=lr, betas=betas, weight_decay=weight_decay)

    def turns(self, lengths: Sequence[int], max_tokens: int) -> list[Turn]:
        """This process's forwards over sequences of these lengths; every process has equally many."""
        return turns_of(lengths, max_tokens, self.process.share, self.policy.packing)

    def step(self, turns: Sequence[Turn], loss_of: Loss, lr_scale: float = 1.0) -> dict[str, float]:
        """Add up the gradients of all turns of all processes, then take one step.

        `loss_of(turn)`: its rows' share of the step's loss, and what was measured on them. The shares add up to the
        loss, however the step is cut. Returns what was measured, added up likewise, and `grad_norm` before clipping.

        Raises:
            ValueError: the gradient is not finite; the weights stay as they were.
        """
        self.optimizer.zero_grad(set_to_none=True)
        measured: dict[str, float | torch.Tensor] = {}
        for turn in turns:
            with compute_type(self.device):
                loss, values = loss_of(turn)
            # FSDP averages the gradients of the processes, where Eqs. 21 and 27 want their sum.
            (loss * (turn.weight * self.process.size)).backward()
            for name, value in values.items():
                measured[name] = measured.get(name, 0.0) + turn.weight * value
        norm = whole(torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm))
        if not torch.isfinite(norm):
            raise ValueError(f"the gradient norm is {norm.item()}; lower the learning rate or look at this step's data")
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * lr_scale
        self.optimizer.step()
        return {
            **self.process.total({name: float(value) for name, value in measured.items()}),
            "grad_norm": norm.item(),
        }

    def save_state(self, path: Path, progress: dict) -> None:
        """Weights, optimizer and `progress`, whole, by rename: also a launch of another size can go on from it."""
        state = {
            "policy": self._kept(dict(self.policy.named_parameters())),
            "optimizer": [self._kept(moments) for moments in self._moments()],
            "progress": progress,
        }
        self.process.on_main(lambda: _save(state, path))

    def _moments(self) -> list[dict[str, torch.Tensor]]:
        """AdamW's moments and step count of each weight, in the order of the weights; empty before the first step."""
        return [self.optimizer.state[weight] for weight in self.policy.parameters()]

    def _kept(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors put together, on the CPU of the main process; the others take part and keep nothing."""
        kept = {}
        for name, tensor in tensors.items():
            value = whole(tensor.detach())
            if self.process.is_main:
                kept[name] = value.cpu()
        return kept

    def load_state(self, path: Path) -> dict | None:
        """Take up a saved state and return its progress; None where there is none. Raises ValueError: it is damaged."""
        if not self.process.on_main(path.exists):
            return None
        state = _load(path)
        with torch.no_grad():
            for name, weight in self.policy.named_parameters():
                weight.copy_(sharded_as(state["policy"][name], weight))
            for weight, moments in zip(self.policy.parameters(), state["optimizer"], strict=True):
                self.optimizer.state[weight] = {
                    name: sharded_as(value.clone(), weight).to(value.device if value.dim() == 0 else weight.device)
                    for name, value in moments.items()
                }
        return state["progress"]

    def save_checkpoint(self, path: Path, chat: Chat) -> None:
        """A folder that `from_pretrained` reads: weights, configuration, tokenizer, chat template, end ids.

        Raises:
            ValueError: a weight is not finite.
        """
        weights = self._kept(dict(self.policy.named_weights()))
        self.process.on_main(lambda: save_checkpoint(self.policy.model, chat, path, weights))


def _save(state: dict, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        torch.save(state, unfinished)
    except RuntimeError as error:  # torch's own writer has no OSError for a full disk
        raise OSError(f"cannot write {path}: {error}") from error
    with open(unfinished, "rb") as file:
        os.fsync(file.fileno())  # also where the machine goes down, the name stands for the whole
    os.replace(unfinished, path)


def _load(path: Path) -> dict:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, UnpicklingError, EOFError, OSError) as error:  # each a way in which torch sees damage
        reason = str(error).split(". ")[0]
        raise ValueError(
            f"{path} cannot be taken up ({reason}); if it is damaged, delete it, and its stage begins anew"
        ) from error


def free_memory(process: Process) -> None:
    """Give back what a finished learner held: what FSDP has sharded is in reference cycles, which only this ends."""
    if process.size == 1:
        return
    gc.collect()
    if process.device.type != "cpu":
        torch.cuda.empty_cache()


def compute_type(device: torch.device) -> torch.autocast:
    """bfloat16 products over float32 weights on a GPU, float32 throughout on a CPU."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type != "cpu")


def save_checkpoint(model: PreTrainedModel, chat: Chat, path: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Write a model with these weights and its tokenizer, whole or not at all. Raises ValueError: a weight is NaN."""
    broken = [name for name, weight in weights.items() if not weight.isfinite().all()]
    if broken:
        raise ValueError(f"training left {broken[0]} with numbers that are not finite; lower the learning rate")
    unfinished = path.with_name(path.name + ".unfinished")
    model.generation_config.eos_token_id = list(chat.end_ids)
    try:
        model.save_pretrained(unfinished, state_dict=dict(weights))
        chat.tokenizer.save_pretrained(unfinished)
    except Exception as error:
        if type(error) not in (SafetensorError, Exception):  # for a full disk the tokenizer's writer has nothing finer
            raise
        raise OSError(f"cannot write {path}: {error}") from error
    if path.exists():  # left by a stage that was killed between this rename and its receipt
        shutil.rmtree(path)
    unfinished.replace(path)


def frozen_policy(checkpoint: Path | str, device: torch.device, packing: bool = False) -> Policy:
    """pi_ref: the same wrapper around weights that never move, whole in each process."""
    policy = Policy(load_causal_lm(checkpoint, torch.float32), packing)
    return policy.to(device).eval().requires_grad_(False)
