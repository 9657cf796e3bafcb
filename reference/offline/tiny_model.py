"""The base model of the offline world: tokenizer, architecture, pre-training.

    python -m reference.offline.tiny_model --out DIR

makes the checkpoint that lies in `reference/offline/tiny_base` again, in about ten minutes on one CPU core. A real
Qwen2 architecture with a byte-complete tokenizer and a chat template of Qwen's form, 2,500 times smaller than the
paper's smaller model.
"""

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random

import torch
import transformers
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from reference.engines.batches import in_batches, pad_right, response_mask
from reference.engines.chat import Chat, TokenizedExample
from reference.engines.learner import save_checkpoint
from reference.engines.policy import Policy
from reference.engines.progress import with_progress
from reference.offline.corpus import Lesson, pretraining_lessons

BASE_CHECKPOINT = Path(__file__).with_name("tiny_base")
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VOCABULARY = 768
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STEPS, BATCH_SIZE = 7000, 16
FEWEST_PROBLEMS = 100  # so that short ones are among them
FIRST_STEPS, FIRST_OPERATIONS = 1600, 2  # the first steps see short problems only: copying numbers comes before chains


def train_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE: all 256 bytes are in it, so that any text can be read and written.

    Qwen2's own way to cut text into pieces, with each digit for itself: `AutoTokenizer` puts it into every Qwen2
    checkpoint, whatever the checkpoint's tokenizer.json says.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
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
    """3 layers, 64 wide, 2 heads over 1 key-value head; the vocabulary head is tied to the embedding.

    Heads are 32 wide: vLLM's attention on a CPU has no narrower ones.
    """
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        initializer_range=0.1,  # about 1 / sqrt(64); the usual 0.02 is for wide models and learns far more slowly here
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


def pretrain(policy: Policy, batches: Sequence[Sequence[TokenizedExample]]) -> None:
    """One step a batch: next-token loss on the solutions, averaged over tokens; lr 3e-3 down to 8e-4 along a cosine."""
    peak, floor, warmup = 3e-3, 8e-4, 100
    device = torch.device("cpu")
    optimizer = torch.optim.AdamW(policy.parameters(), lr=peak, betas=(0.9, 0.95), weight_decay=0.01)
    policy.train()
    for step, batch in with_progress(list(enumerate(batches)), len(batches), "pre-training"):
        lengths = [len(example.token_ids) for example in batch]
        ids_BT = pad_right([example.token_ids for example in batch], device)
        mask_BT = response_mask([example.prompt_length for example in batch], lengths, device)
        logprobs_BT = policy(ids_BT, mask_BT).logprobs
        loss = -logprobs_BT.sum() / mask_BT.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        annealed = floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * step / len(batches)))
        for group in optimizer.param_groups:
            group["lr"] = min(1.0, (step + 1) / warmup) * annealed
        optimizer.step()


def curriculum(
    lessons: Sequence[Lesson], examples: Sequence[TokenizedExample], *, steps: int, seed: int
) -> list[Sequence[TokenizedExample]]:
    """The batches of all steps: short problems first, then all of them, as often as needed."""
    rng = Random(seed)
    short = [
        example for example, lesson in zip(examples, lessons, strict=True) if lesson.num_operations <= FIRST_OPERATIONS
    ]
    first = list(islice(_endless_batches(short, rng), steps * FIRST_STEPS // STEPS))
    return first + list(islice(_endless_batches(examples, rng), steps - len(first)))


def _endless_batches(examples: Sequence[TokenizedExample], rng: Random) -> Iterator[Sequence[TokenizedExample]]:
    """Epoch after epoch, without much padding: shuffle, sort stretches of 50 batches by length, shuffle batches."""
    while True:
        order = list(examples)
        rng.shuffle(order)
        batches = []
        for stretch in in_batches(order, 50 * BATCH_SIZE):
            batches += in_batches(sorted(stretch, key=lambda example: len(example.token_ids)), BATCH_SIZE)
        rng.shuffle(batches)
        yield from batches


def make_base(out: Path, *, num_problems: int, steps: int, seed: int) -> None:
    """Corpus -> tokenizer -> model -> checkpoint folder."""
    torch.manual_seed(seed)
    transformers.logging.disable_progress_bar()
    started = time.monotonic()
    lessons = pretraining_lessons(num_problems, seed)
    tokenizer = train_tokenizer([_as_text(lesson) for lesson in lessons[:20_000]])
    chat = Chat(tokenizer, [tokenizer.eos_token_id])
    examples = [chat.example_ids(lesson.chat) for lesson in lessons]
    tokens = sum(len(example.token_ids) for example in examples)
    print(f"{len(examples)} problems, {tokens / len(examples):.0f} tokens each, {time.monotonic() - started:.0f} s")
    model = new_model(tokenizer)
    pretrain(Policy(model), curriculum(lessons, examples, steps=steps, seed=seed))
    save_checkpoint(model, chat, out, dict(model.named_parameters()))
    print(
        f"{sum(weight.numel() for weight in model.parameters())} parameters, {time.monotonic() - started:.0f} s, {out}"
    )


def _as_text(lesson: Lesson) -> str:
    """What the tokenizer learns its words from: the roles of the chat as well as what is said."""
    return "\n".join(f"{message.role}\n{message.content}" for message in lesson.chat)


def main() -> None:
    """Read the command line and make the base."""
    parser = argparse.ArgumentParser(description="Make the offline world's base model.")
    parser.add_argument("--out", type=Path, default=BASE_CHECKPOINT, help="checkpoint folder to write")
    parser.add_argument("--problems", type=int, default=60_000, help="distinct problems to read")
    parser.add_argument("--steps", type=int, default=STEPS, help="optimizer steps")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.problems < FEWEST_PROBLEMS or arguments.steps < 1:
        parser.error(
            f"--problems must be at least {FEWEST_PROBLEMS} and --steps at least 1, "
            f"got {arguments.problems} and {arguments.steps}"
        )
    torch.set_num_threads(1)
    make_base(arguments.out, num_problems=arguments.problems, steps=arguments.steps, seed=arguments.seed)


if __name__ == "__main__":
    main()
