"""Our sampler beside a plain `model.generate`, on the tiny base model at 64 prompts x 8 samples, in one run.

    python tests/engines/test_sampler_speed.py

prints tokens per second of both, greedy and sampled. Only tokens up to the end of a response count, for both.
"""

import time

import pytest
import torch

from reference.engines.chat import Chat
from reference.engines.hf_sampler import HFSampler
from reference.engines.policy import load_causal_lm
from reference.interfaces import Sampling
from reference.offline.tiny_model import BASE_CHECKPOINT
from reference.offline.word_problems import generate
from reference.paper.prompts import Prompts, student_messages

PROMPTS, SAMPLES, NEW_TOKENS = 64, 8, 192


def prompts_and_chat() -> tuple[list[list[int]], Chat]:
    chat = Chat.from_checkpoint(BASE_CHECKPOINT)
    problems = generate("test", PROMPTS, seed=1)
    return [chat.prompt_ids(student_messages(Prompts(), problem)) for problem in problems], chat


def with_ours(prompts: list[list[int]], chat: Chat, temperature: float) -> tuple[list[tuple[int, ...]], float]:
    sampler = HFSampler(chat.tokenizer, chat.end_ids, torch.device("cpu"), torch.float32)
    sampler.load(BASE_CHECKPOINT)
    seeds = [[at * SAMPLES + i for i in range(SAMPLES)] for at in range(len(prompts))]
    began = time.perf_counter()
    groups = sampler.sample(prompts, seeds, Sampling(temperature, 0.9, NEW_TOKENS))
    return [response.token_ids for group in groups for response in group], time.perf_counter() - began


def with_generate(prompts: list[list[int]], chat: Chat, temperature: float) -> tuple[list[tuple[int, ...]], float]:
    """Left-padded, every prompt once for each of its samples, as trainers call it."""
    model = load_causal_lm(BASE_CHECKPOINT, torch.float32).eval()
    longest = max(len(prompt) for prompt in prompts)
    rows = [prompt for prompt in prompts for _ in range(SAMPLES)]
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    how = (
        {"do_sample": True, "temperature": temperature, "top_p": 0.9, "top_k": 0}
        if temperature
        else {"do_sample": False}
    )
    began = time.perf_counter()
    with torch.inference_mode():
        output = model.generate(
            ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, pad_token_id=0, eos_token_id=list(chat.end_ids), **how
        )
    seconds = time.perf_counter() - began
    return [up_to_the_end(row.tolist(), chat.end_ids) for row in output[:, longest:]], seconds


def up_to_the_end(ids: list[int], end_ids: tuple[int, ...]) -> tuple[int, ...]:
    at = next((at for at, token in enumerate(ids) if token in end_ids), len(ids) - 1)
    return tuple(ids[: at + 1])


def compare(temperature: float) -> tuple[float, float, bool]:
    """Tokens per second of ours and of `generate`, and whether all tokens are equal."""
    prompts, chat = prompts_and_chat()
    ours, our_seconds = with_ours(prompts, chat, temperature)
    theirs, their_seconds = with_generate(prompts, chat, temperature)
    rates = [sum(map(len, rows)) / seconds for rows, seconds in ((ours, our_seconds), (theirs, their_seconds))]
    return rates[0], rates[1], ours == theirs


@pytest.mark.slow
def test_the_sampler_is_at_least_twice_as_fast_as_generate_and_greedily_equal():
    torch.set_num_threads(1)
    rounds = [compare(temperature=0.0) for _ in range(3)]
    assert all(equal for _, _, equal in rounds)
    assert sorted(ours / theirs for ours, theirs, _ in rounds)[1] >= 2


def main() -> None:
    torch.set_num_threads(1)
    for name, temperature in (("greedy", 0.0), ("T 0.7, top-p 0.9", 0.7)):
        for _ in range(3):
            ours, theirs, equal = compare(temperature)
            tokens = ", tokens equal" if equal else ""
            print(f"{name:18} ours {ours:7.0f} tokens/s, generate {theirs:7.0f}, ratio {ours / theirs:.2f}{tokens}")


if __name__ == "__main__":
    main()
