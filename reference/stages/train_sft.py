"""Appendix B.3: one phase of supervised fine-tuning (Eqs. 13, 20 and 21, Table 5)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch

from reference.config import Config, Equations, GRPOConfig, ModelConfig, SFTConfig
from reference.engines.artifacts import to_lines
from reference.engines.batches import Turn, in_batches, pad_right, response_mask
from reference.engines.chat import Chat, TokenizedExample, text_of
from reference.engines.distributed import Process
from reference.engines.learner import Learner, free_memory
from reference.engines.progress import with_progress
from reference.engines.run_folder import RunFolder, StageFolder
from reference.engines.student import Student
from reference.paper import verl
from reference.paper.answers import extract_answer
from reference.paper.sft import cosine_schedule, sft_loss
from reference.records import SFTExample, SFTMean
from reference.seeds import seed_of


@dataclass(frozen=True)
class Tokenized:
    """The phase's samples as ids, and what truncation did to them."""

    examples: list[TokenizedExample]
    num_truncated: int
    num_answers_lost: int
    num_empty: int


def train_sft(
    run: RunFolder, config: Config, name: str, start: Path, examples: Sequence[SFTExample], student: Student
) -> Path:
    """Train `start` on the examples and return the new checkpoint; without examples the model stays as it was."""
    lines = to_lines(examples)
    reads = ("seed", "model", "equations", "sft", "readings.sft_mean")
    stage = run.stage(name, reads, {"start": start, "examples": lines})
    checkpoint = stage.path / "checkpoint"
    if stage.is_done:
        stage.forget_state()  # of a stage that was killed behind its receipt
        return checkpoint if stage.counts["steps"] else start
    stage.write("examples.jsonl", lines)
    tokenized = tokenize(examples, student.chat, config.sft.max_length, config.equations)
    counts = {
        "examples": len(examples),
        "truncated": tokenized.num_truncated,
        "answers lost": tokenized.num_answers_lost,
        "left empty": tokenized.num_empty,
    }
    if not tokenized.examples:
        stage.finish({**counts, "steps": 0}, note="nothing to learn from, the model stays as it was")
        return start
    losses = _train(stage, config, start, tokenized.examples, student)
    free_memory(student.process)
    stage.finish({**counts, "steps": len(losses), "nats per token at the last step": round(losses[-1], 3)})
    stage.forget_state()
    return checkpoint


def learner_of(start: Path, process: Process, model: ModelConfig, settings: SFTConfig | GRPOConfig) -> Learner:
    """The optimizer that Table 5 or Table 6 describes, around the weights of a checkpoint."""
    return Learner(
        start,
        process,
        lr=settings.lr,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        packing=model.packing,
        activation_checkpointing=model.activation_checkpointing,
    )


def tokenize(examples: Sequence[SFTExample], chat: Chat, max_length: int, equations: Equations = "paper") -> Tokenized:
    """Right truncation (Table 5), never silent: what is cut, what loses its answer, what keeps no supervised token.

    As verl has it, what the template writes behind the end of the turn is supervised too (ambiguity A54).
    """
    kept, truncated, answers_lost, empty = [], 0, 0, 0
    for example in examples:
        tokens = chat.sft_ids(example, with_tail=equations == "verl")
        if len(tokens.token_ids) > max_length:
            truncated += 1
            cut = TokenizedExample(tokens.token_ids[:max_length], tokens.prompt_length)
            answers_lost += _answer(tokens, chat) != _answer(cut, chat)
            tokens = cut
        if len(tokens.token_ids) > tokens.prompt_length:
            kept.append(tokens)
        else:
            empty += 1
    return Tokenized(kept, truncated, answers_lost, empty)


def _answer(tokens: TokenizedExample, chat: Chat) -> str | None:
    """The final answer that stands in the supervised tokens, if any."""
    return extract_answer(text_of(chat.tokenizer, tokens.token_ids[tokens.prompt_length :]))


def _train(
    stage: StageFolder,
    config: Config,
    start: Path,
    examples: Sequence[TokenizedExample],
    student: Student,
) -> list[float]:
    """All steps of the phase, from the last saved one on; the loss of each step. Writes the checkpoint."""
    settings = config.sft
    schedule = verl.cosine_schedule if config.equations == "verl" else cosine_schedule
    mean = "tokens" if config.equations == "verl" else config.readings.sft_mean
    learner = learner_of(start, student.process, config.model, settings)
    first = (learner.load_state(stage.state_path) or {"steps": 0})["steps"]
    log = stage.steps("metrics.jsonl", first)
    batches = _batches(examples, settings, config.seed, stage.name)
    for step, batch in with_progress(list(enumerate(batches, start=1))[first:], len(batches) - first, stage.name):
        scale = schedule(step, len(batches), settings.warmup_ratio, settings.min_lr_ratio)
        metrics = sft_step(learner, batch, settings.max_tokens_per_batch, scale, mean)
        log.add({"step": step, "lr": settings.lr * scale, **metrics})
        if step % settings.save_every == 0:
            log.flush()
            learner.save_state(stage.state_path, {"steps": step})
    learner.save_checkpoint(stage.path / "checkpoint", student.chat)
    return [row["loss"] for row in log.finish()]


def _batches(
    examples: Sequence[TokenizedExample], settings: SFTConfig, seed: int, stage: str
) -> list[Sequence[TokenizedExample]]:
    """The optimizer steps' samples: each epoch in an order of its own; the last batch of an epoch may be smaller."""
    batches = []
    for epoch in range(settings.epochs):
        order = list(examples)
        Random(seed_of(seed, stage, "order", epoch)).shuffle(order)
        batches += in_batches(order, settings.batch_size)
    return batches


def sft_step(
    learner: Learner,
    batch: Sequence[TokenizedExample],
    max_tokens: int,
    lr_scale: float = 1.0,
    mean: SFTMean = "responses",
) -> dict[str, float]:
    """One optimizer step on Eq. (21), exactly, whatever the micro-batches: each has its share of the batch's mean.

    The share is one of the responses; in a mean over tokens, which verl takes, one of the tokens (ambiguity A31).
    """
    lengths = [len(example.token_ids) for example in batch]
    supervised = [len(example.token_ids) - example.prompt_length for example in batch]

    def share_of_loss(turn: Turn) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        rows = turn.rows
        ids_BT = pad_right([batch[row].token_ids for row in rows], learner.device)
        prompts, ends = [batch[row].prompt_length for row in rows], [lengths[row] for row in rows]
        mask_BT = response_mask(prompts, ends, learner.device)
        logprobs_BT = learner.policy(ids_BT, mask_BT).logprobs
        if mean == "tokens":
            share = verl.sft_loss(logprobs_BT, mask_BT) * sum(supervised[row] for row in rows) / sum(supervised)
        else:
            share = sft_loss(logprobs_BT, mask_BT) * len(rows) / len(batch)
        return share, {"loss": share.detach()}

    metrics = learner.step(learner.turns(lengths, max_tokens), share_of_loss, lr_scale)
    return {**metrics, "supervised_tokens": sum(supervised)}
