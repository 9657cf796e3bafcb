"""Rollouts with a Hugging Face model: the sampler that serves everywhere.

How it differs from `model.generate`, which gives the same greedy tokens: a prompt is read once and shared by all its
samples, the cache is reserved once instead of copied at each token, attention reads grouped heads without repeating
them, rows that are done leave the batch, and each sample has a random stream of its own. Temperature and top-p are the
only things that shape the distribution: a checkpoint's `generation_config` (top-k, repetition penalty) is not applied.

Shapes: P prompts, R rows (a row is one sample of one prompt), L cached positions, V words.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AttentionInterface, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import Cache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from reference.engines.chat import text_of
from reference.engines.policy import copy_weights, load_causal_lm
from reference.interfaces import Sampling, Share
from reference.paper.tokens import token_logprobs
from reference.records import Completion

# Rows that leave the batch are dropped from the cache when this share of it is idle: moving the cache costs too.
COMPACT_WHEN_IDLE = 0.25
# Prompt tokens, padding included, that are read in one forward.
PREFILL_TOKENS = 32768
# How many of the likeliest words are sorted before the whole vocabulary is.
LIKELIEST = 64


def _grouped_decode_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention for one new token: the heads that share keys become the query positions, so that no key is copied."""
    if query.shape[2] != 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **options)
    rows, _, _, width = query.shape
    grouped = query.reshape(rows, key.shape[1], -1, width)
    attended = F.scaled_dot_product_attention(grouped, key, value, attn_mask=attention_mask, scale=scaling)
    return attended.reshape(rows, 1, -1, width), None


AttentionInterface.register("grouped_decode", _grouped_decode_attention)


class _ReservedLayer(DynamicLayer):
    """A cache layer with room for `length` positions, so that a new token is written in place."""

    def __init__(self, length: int):
        super().__init__()
        self.length = length

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._reserve(key_states, value_states)
        begin = self.get_seq_length()
        end = begin + key_states.shape[-2]
        self._all_keys[:, :, begin:end] = key_states
        self._all_values[:, :, begin:end] = value_states
        self.keys, self.values = self._all_keys[:, :, :end], self._all_values[:, :, :end]
        return self.keys, self.values

    def _reserve(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        rows, heads, _, width = key_states.shape
        self._all_keys = key_states.new_empty(rows, heads, self.length, width)
        self._all_values = value_states.new_empty(rows, heads, self.length, value_states.shape[-1])

    def take_rows(self, rows: torch.Tensor) -> None:
        """Keep these rows, in this order; a row may be asked for several times."""
        end = self.get_seq_length()
        old_keys, old_values = self._all_keys[:, :, :end], self._all_values[:, :, :end]
        self._reserve(old_keys[:1].expand(len(rows), -1, -1, -1), old_values[:1].expand(len(rows), -1, -1, -1))
        torch.index_select(old_keys, 0, rows, out=self._all_keys[:, :, :end])
        torch.index_select(old_values, 0, rows, out=self._all_values[:, :, :end])
        self.keys, self.values = self._all_keys[:, :, :end], self._all_values[:, :, :end]


class HFSampler:
    """Implements `interfaces.Sampler` on one device."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        end_ids: Sequence[int],
        device: torch.device,
        dtype: torch.dtype,
        max_rows: int = 512,
        share: Share = Share(),
    ):
        self.share = share
        self.tokenizer = tokenizer
        self.device = device
        self.dtype = dtype
        self.max_rows = max_rows
        self.end_ids = torch.tensor(list(end_ids), device=device)
        self.model: PreTrainedModel | None = None

    def load(self, checkpoint: Path) -> None:
        """Take the weights of a checkpoint directory."""
        model = load_causal_lm(checkpoint, self.dtype)
        model.to(self.device)  # type: ignore[arg-type]  # transformers types it without its self
        model.eval().set_attn_implementation("grouped_decode")
        self.model = model

    def sync(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take over the trainer's weights, named as in the checkpoint."""
        copy_weights(self._loaded(), weights)

    def close(self) -> None:
        """Let the model go."""
        self.model = None

    def _loaded(self) -> PreTrainedModel:
        if self.model is None:
            raise ValueError("the sampler has no weights yet; call load(checkpoint) first")
        return self.model

    @torch.inference_mode()
    def sample(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Completion]]:
        """See `interfaces.Sampler.sample`.

        Raises:
            ValueError: no checkpoint loaded, an empty prompt, or a prompt too long for the model.
        """
        self._check_lengths(prompts, sampling)
        results: list[list[Completion]] = []
        begin = 0
        while begin < len(prompts):
            end, rows, longest = begin + 1, len(seeds[begin]), len(prompts[begin])
            while end < len(prompts):
                rows, longest = rows + len(seeds[end]), max(longest, len(prompts[end]))
                if rows > self.max_rows or (end + 1 - begin) * longest > PREFILL_TOKENS:
                    break
                end += 1
            results.extend(self._sample_batch(prompts[begin:end], seeds[begin:end], sampling))
            begin = end
        return results

    def _check_lengths(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> None:
        limit = self._loaded().config.max_position_embeddings
        for prompt in prompts:
            if not 0 < len(prompt) <= limit - sampling.max_new_tokens:
                raise ValueError(
                    f"a prompt of {len(prompt)} tokens and {sampling.max_new_tokens} new ones do not fit the model's "
                    f"{limit} positions; lower --data.max-prompt-tokens or the max-new-tokens of this stage"
                )

    def _sample_batch(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Completion]]:
        """One batch, from the prompts to the last end of turn; a single prompt's may be more than `max_rows` rows."""
        counts = [len(group) for group in seeds]
        uniforms_RT = _uniforms([seed for group in seeds for seed in group], sampling, self.device)
        rows = sum(counts)
        cache, logits_PV, mask_PL, lengths_P = self._read_prompts(prompts, sampling.max_new_tokens)

        prompt_of_row = torch.repeat_interleave(torch.arange(len(prompts)), torch.tensor(counts)).to(self.device)
        _take_rows(cache, prompt_of_row)
        logits_RV, mask_RL, position_R = logits_PV[prompt_of_row], mask_PL[prompt_of_row], lengths_P[prompt_of_row]
        tokens_RT = torch.zeros(rows, sampling.max_new_tokens, dtype=torch.long, device=self.device)
        logprobs_RT = torch.zeros(tokens_RT.shape, device=self.device) if sampling.with_logprobs else None
        length_R = torch.full((rows,), sampling.max_new_tokens, device=self.device)
        finished_R = torch.zeros(rows, dtype=torch.bool, device=self.device)
        alive = torch.arange(rows, device=self.device)  # the row that each line of the cache belongs to

        for step in range(sampling.max_new_tokens):
            next_R = _choose(logits_RV, None if uniforms_RT is None else uniforms_RT[alive, step], sampling)
            running_R = ~finished_R[alive]
            tokens_RT[alive[running_R], step] = next_R[running_R]
            if logprobs_RT is not None:
                logprobs_RT[alive[running_R], step] = token_logprobs(logits_RV[running_R], next_R[running_R])
            ended = alive[running_R & torch.isin(next_R, self.end_ids)]
            finished_R[ended] = True
            length_R[ended] = step + 1
            keep = (~finished_R[alive]).nonzero().squeeze(1)
            if len(keep) == 0 or step + 1 == sampling.max_new_tokens:
                break
            if len(keep) <= (1 - COMPACT_WHEN_IDLE) * len(alive):
                _take_rows(cache, keep)
                alive, next_R, mask_RL, position_R = alive[keep], next_R[keep], mask_RL[keep], position_R[keep]
            mask_RL = F.pad(mask_RL, (0, 1), value=True)
            logits_RV = self._forward(next_R[:, None], position_R[:, None], mask_RL[:, None, None, :], cache)
            position_R = position_R + 1
        return self._completions(tokens_RT, logprobs_RT, length_R, finished_R, counts)

    def _read_prompts(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int
    ) -> tuple[Cache, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Prefill: left-padded prompts -> cache, next-token logits [P, V], real positions [P, L], lengths [P]."""
        longest = max(len(prompt) for prompt in prompts)
        pads = torch.tensor([longest - len(prompt) for prompt in prompts], device=self.device)
        ids_PL = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=self.device)
        at_L = torch.arange(longest, device=self.device)
        mask_PL = at_L[None, :] >= pads[:, None]
        causal_LL = at_L[None, :] <= at_L[:, None]
        # A padding position sees itself: a row of the attention that sees nothing would be NaN.
        seen_P1LL = (causal_LL & mask_PL[:, None, :] | torch.eye(longest, dtype=torch.bool, device=self.device))[
            :, None
        ]
        positions_PL = (at_L[None, :] - pads[:, None]).clamp(min=0)
        num_layers = self._loaded().config.num_hidden_layers
        cache = Cache(layers=[_ReservedLayer(longest + max_new_tokens) for _ in range(num_layers)])
        logits_PV = self._forward(ids_PL, positions_PL, seen_P1LL, cache)
        return cache, logits_PV, mask_PL, longest - pads

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor, cache: Cache) -> torch.Tensor:
        """Logits of the last position. The mask has four dimensions and is used as it is."""
        output = self._loaded()(
            input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=cache, logits_to_keep=1
        )
        return output.logits[:, -1].float()

    def _completions(
        self,
        tokens_RT: torch.Tensor,
        logprobs_RT: torch.Tensor | None,
        length_R: torch.Tensor,
        finished_R: torch.Tensor,
        counts: Sequence[int],
    ) -> list[list[Completion]]:
        rows = []
        for row, (length, finished) in enumerate(zip(length_R.tolist(), finished_R.tolist(), strict=True)):
            ids = tokens_RT[row, :length].tolist()
            text = text_of(self.tokenizer, ids[:-1] if finished else ids)
            logprobs = None if logprobs_RT is None else tuple(logprobs_RT[row, :length].tolist())
            rows.append(Completion(tuple(ids), text, finished, logprobs))
        bounds = np.cumsum([0, *counts])
        return [rows[begin:end] for begin, end in pairwise(bounds)]


def _take_rows(cache: Cache, rows: torch.Tensor) -> None:
    for layer in cache.layers:
        assert isinstance(layer, _ReservedLayer)
        layer.take_rows(rows)


def _uniforms(seeds: Sequence[int], sampling: Sampling, device: torch.device) -> torch.Tensor | None:
    """One uniform number in [0, 1] for each row and token, from the row's own counter-based stream."""
    if sampling.temperature == 0:
        return None
    streams = [np.random.Generator(np.random.Philox(seed)).random(sampling.max_new_tokens) for seed in seeds]
    return torch.tensor(np.stack(streams), dtype=torch.float32, device=device)


def _choose(logits_RV: torch.Tensor, uniforms_R: torch.Tensor | None, sampling: Sampling) -> torch.Tensor:
    """The next token: the most likely one, or a draw by inverting the cumulated, top-p truncated distribution.

    The nucleus is the smallest set of likeliest words whose probability reaches `top_p`. It is nearly always among the
    few likeliest words; only for a row where it is not, the whole vocabulary is sorted.
    """
    if uniforms_R is None:
        return logits_RV.argmax(dim=-1)
    probabilities_RV = torch.softmax(logits_RV / sampling.temperature, dim=-1)
    sorted_RK, words_RK = probabilities_RV.topk(min(LIKELIEST, logits_RV.shape[1]), dim=-1)
    chosen_R = _draw(sorted_RK, words_RK, uniforms_R, sampling.top_p)
    wide_R = sorted_RK.sum(dim=-1) < sampling.top_p
    if wide_R.any():
        sorted_RV, words_RV = probabilities_RV[wide_R].sort(dim=-1, descending=True)
        chosen_R[wide_R] = _draw(sorted_RV, words_RV, uniforms_R[wide_R], sampling.top_p)
    return chosen_R


def _draw(sorted_RK: torch.Tensor, words_RK: torch.Tensor, uniforms_R: torch.Tensor, top_p: float) -> torch.Tensor:
    """Invert the cumulated probabilities of the nucleus: the word whose interval holds u * (mass of the nucleus)."""
    cumulated_RK = sorted_RK.cumsum(dim=-1)
    last_R1 = (cumulated_RK < top_p).sum(dim=-1, keepdim=True).clamp(max=sorted_RK.shape[1] - 1)
    kept_mass_R1 = cumulated_RK.gather(1, last_R1)
    index_R1 = (cumulated_RK <= uniforms_R[:, None] * kept_mass_R1).sum(dim=-1, keepdim=True)
    return words_RK.gather(1, torch.minimum(index_R1, last_R1)).squeeze(1)
