"""What each process of test_vllm_processes.py's launches does: train, push the weights, sample with both samplers.

    torchrun --nproc-per-node N tests/engines/vllm_worker.py CHECKPOINT OTHER_CHECKPOINT OUT --tensor-parallel K

The processes share each update; sharded weights are put together on their way into the samplers. Writes OUT/RANK.json.
"""

import argparse
import json
from pathlib import Path

import torch

from reference.engines.chat import Chat, TokenizedExample
from reference.engines.distributed import Process
from reference.engines.hf_sampler import HFSampler
from reference.engines.learner import Learner
from reference.engines.vllm_sampler import VLLMSampler, VLLMSettings
from reference.interfaces import Sampling
from reference.stages.train_sft import sft_step

CPU = torch.device("cpu")
GREEDY = Sampling(temperature=0.0, top_p=1.0, max_new_tokens=24, with_logprobs=True)
DRAWN = Sampling(temperature=0.7, top_p=0.9, max_new_tokens=24)
UPDATES = 3


def random_prompts(count):
    draw = torch.Generator().manual_seed(5)
    return [torch.randint(3, 768, (6 + 7 * at,), generator=draw).tolist() for at in range(count)]


def update(learner, seed):
    """One SFT step (Eq. 21) on random words, large enough to turn greedy outputs around."""
    draw = torch.Generator().manual_seed(seed)
    ids_BT = torch.randint(3, 768, (4, 30), generator=draw)
    sft_step(learner, [TokenizedExample(tuple(ids), 10) for ids in ids_BT.tolist()], max_tokens=40)


def greedy_pair(vllm, hugging_face, prompts):
    """Both samplers' greedy responses with their log-probabilities."""
    pair = {}
    for name, sampler in (("vllm", vllm), ("hf", hugging_face)):
        groups = sampler.sample(prompts, [[0]] * len(prompts), GREEDY)
        pair[name] = [(group[0].token_ids, group[0].logprobs) for group in groups]
    return pair


def drawn(vllm, indices, prompts):
    """Two samples of each prompt, by the prompt's place in the whole list."""
    groups = vllm.sample([prompts[at] for at in indices], [[2 * at, 2 * at + 1] for at in indices], DRAWN)
    return {at: [completion.token_ids for completion in group] for at, group in zip(indices, groups, strict=True)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tensor-parallel", type=int, default=1)
    arguments = parser.parse_args()

    process = Process.of_launch()
    rank, size = process.rank, process.size
    torch.manual_seed(rank)  # as unlike as the random states of processes can be
    chat = Chat.from_checkpoint(arguments.checkpoint)
    settings = VLLMSettings(tensor_parallel=arguments.tensor_parallel, max_rows=8)
    vllm = VLLMSampler(chat.tokenizer, [2], torch.float32, settings, rank, size)
    hugging_face = HFSampler(chat.tokenizer, [2], CPU, torch.float32)
    prompts = random_prompts(7)
    mine = vllm.share.of(prompts)

    result = {"share": vars(vllm.share), "greedy": []}
    vllm.load(arguments.checkpoint)
    hugging_face.load(arguments.checkpoint)
    result["greedy"].append(greedy_pair(vllm, hugging_face, mine))
    # Before the updates: shared between processes, they leave weights that differ in their last digits.
    result["drawn"] = drawn(vllm, vllm.share.of(range(7)), prompts)
    result["backwards"] = drawn(vllm, vllm.share.of(range(7))[::-1], prompts)
    result["few"] = drawn(vllm, vllm.share.of(range(1)), prompts)  # a share may be empty
    learner = Learner(arguments.checkpoint, process, lr=3e-2, betas=(0.9, 0.95), weight_decay=0.1, max_grad_norm=1.0)
    for seed in range(UPDATES):
        update(learner, seed)
        for sampler in (vllm, hugging_face):
            sampler.sync(learner.policy.named_weights())
        result["greedy"].append(greedy_pair(vllm, hugging_face, mine))

    engine = vllm._engine
    for sampler in (vllm, hugging_face):
        sampler.load(arguments.other)
    result["greedy"].append(greedy_pair(vllm, hugging_face, mine))
    result["same engine"] = vllm._engine is engine
    arguments.out.joinpath(f"{rank}.json").write_text(json.dumps(result), encoding="utf-8")
    vllm.close()
    process.gather(None)  # none leaves the others in the middle of a collective


if __name__ == "__main__":
    main()
