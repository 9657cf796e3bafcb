"""The base model of the offline world: tokenizer, architecture, pre-training.

    python -m reference.offline.tiny_model --out DIR

makes the checkpoint that lies in `reference/offline/tiny_base` again, in a few minutes on one CPU core. A real Qwen2
architecture with a byte-complete tokenizer and a chat template of Qwen's form, 300 times smaller than the paper's
smaller model.
"""

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from reference.engines.batches import pad_right, response_mask
from reference.engines.chat import Chat, TokenizedExample
from reference.engines.learner import save_checkpoint
from reference.engines.policy import Policy
from reference.engines.progress import with_progress
from reference.offline.corpus import pretraining_chats
from reference.records import Message

BASE_CHECKPOINT = Path(__file__).with_name("tiny_base")
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VOCABULARY = 768
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Every digit is a token of its own; a space belongs to the word or digit behind it.
_PIECES = Regex(r" ?[0-9]| ?[A-Za-z]+|\n+| ?[^\sA-Za-z0-9]+|\s+")


def train_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE: all 256 bytes are in it, so that any text can be read and written."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(_PIECES, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)
    fast.chat_template = CHAT_TEMPLATE
    return fast


def new_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """3 layers, 64 wide, 4 heads over 2 key-value heads; the head is tied to the embedding."""
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.1,  # about 1 / sqrt(64); the usual 0.02 is for wide models and learns far more slowly here
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


def pretrain(policy: Policy, examples: Sequence[TokenizedExample], *, steps: int, batch_size: int, seed: int) -> None:
    """Next-token loss on the solutions, averaged over tokens; lr 3e-3 down to 8e-4 along a cosine."""
    peak, floor, warmup = 3e-3, 8e-4, 100
    optimizer = torch.optim.AdamW(policy.parameters(), lr=peak, betas=(0.9, 0.95), weight_decay=0.1)
    batches = _similar_lengths(examples, batch_size, Random(seed))
    policy.train()
    for step in with_progress(range(steps), steps, "pre-training"):
        batch = [examples[index] for index in batches[step % len(batches)]]
        lengths = [len(example.token_ids) for example in batch]
        ids_BT = pad_right([example.token_ids for example in batch], torch.device("cpu"))
        mask_BT = response_mask([example.prompt_length for example in batch], lengths, torch.device("cpu"))
        logprobs_BT, _ = policy(ids_BT, mask_BT)
        loss = -logprobs_BT.sum() / mask_BT.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        scale = min(1.0, (step + 1) / warmup)
        annealed = floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = scale * annealed
        optimizer.step()


def _similar_lengths(examples: Sequence[TokenizedExample], batch_size: int, rng: Random) -> list[list[int]]:
    """Batches without much padding, in random order: shuffle, sort stretches of 50 batches by length, shuffle batches."""
    order = list(range(len(examples)))
    rng.shuffle(order)
    stretch = 50 * batch_size
    batches = []
    for begin in range(0, len(order), stretch):
        part = sorted(order[begin : begin + stretch], key=lambda index: len(examples[index].token_ids))
        batches += [part[at : at + batch_size] for at in range(0, len(part), batch_size)]
    rng.shuffle(batches)
    return batches


def make_base(out: Path, *, num_problems: int, steps: int, batch_size: int, seed: int) -> None:
    """Corpus -> tokenizer -> model -> checkpoint folder."""
    torch.manual_seed(seed)
    started = time.monotonic()
    chats = pretraining_chats(num_problems, seed)
    tokenizer = train_tokenizer([_as_text(chat) for chat in chats[:20_000]])
    chat = Chat(tokenizer, [tokenizer.eos_token_id])
    examples = [chat.example_ids(messages) for messages in chats]
    tokens = sum(len(example.token_ids) for example in examples)
    print(f"{len(examples)} chats, {tokens / len(examples):.0f} tokens each, {time.monotonic() - started:.0f} s")
    model = new_model(tokenizer)
    pretrain(Policy(model), examples, steps=steps, batch_size=batch_size, seed=seed)
    save_checkpoint(model, chat, out)
    print(f"{sum(weight.numel() for weight in model.parameters())} parameters, {time.monotonic() - started:.0f} s, {out}")


def _as_text(chat: Sequence[Message]) -> str:
    return "\n".join(message.content for message in chat)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the offline world's base model.")
    parser.add_argument("--out", type=Path, default=BASE_CHECKPOINT, help="checkpoint folder to write")
    parser.add_argument("--problems", type=int, default=60_000, help="distinct problems to read")
    parser.add_argument("--steps", type=int, default=1200, help="optimizer steps")
    parser.add_argument("--batch-size", type=int, default=64, help="problems in a step")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    make_base(
        arguments.out,
        num_problems=arguments.problems,
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
    )


if __name__ == "__main__":
    main()
