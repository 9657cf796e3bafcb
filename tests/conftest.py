"""What several test files share: small random models, the stored base's chat, one thread."""

import os
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers import logging as transformers_logging

from reference.engines.chat import Chat
from reference.engines.distributed import Process
from reference.engines.hf_sampler import HFSampler
from reference.engines.learner import save_checkpoint
from reference.engines.student import Student
from reference.offline.tiny_model import BASE_CHECKPOINT
from reference.paper.prompts import Prompts

torch.set_num_threads(1)  # on models of this size a second thread costs more than it brings
transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def data_dir():
    """The folder of all real data sets as JSONL; it is not part of the repository."""
    if "DATA_DIR" not in os.environ:
        pytest.skip(
            "no real data: set DATA_DIR to a folder with gsm8k/, gsm8k_platinum/, mawps/, svamp/, math500/, logiqa/"
        )
    return Path(os.environ["DATA_DIR"]).resolve()


@pytest.fixture(scope="session")
def gsm8k():
    """The folder of the real GSM8K, `train.jsonl` and `test.jsonl`; it is not part of the repository."""
    if "GSM8K_DIR" not in os.environ:
        pytest.skip("no real data: set GSM8K_DIR to a folder with GSM8K's train.jsonl and test.jsonl")
    return Path(os.environ["GSM8K_DIR"]).resolve()


@pytest.fixture(scope="session")
def paper_text():
    """The paper as text."""
    if "PAPER_TEXT" not in os.environ:
        pytest.skip("no paper to compare with: set PAPER_TEXT to a file with its text")
    return Path(os.environ["PAPER_TEXT"]).read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def chat():
    """The tokenizer and the chat template of the offline world."""
    return Chat.from_checkpoint(BASE_CHECKPOINT)


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory, chat):
    """A function that gives a checkpoint folder of random weights; equal arguments give the same folder.

    A wide initialisation makes the outputs vary from prompt to prompt; 0.02 makes them nearly uniform. vLLM's attention
    on a CPU wants heads of 32 at least.
    """
    folders = {}

    def make(seed=0, tied=True, spread=0.2, head_width=8):
        if (seed, tied, spread, head_width) not in folders:
            torch.manual_seed(seed)
            config = Qwen2Config(
                vocab_size=len(chat.tokenizer),
                hidden_size=4 * head_width,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=512,
                tie_word_embeddings=tied,
                initializer_range=spread,
            )
            folder = tmp_path_factory.mktemp("model") / "checkpoint"
            model = Qwen2ForCausalLM(config)
            save_checkpoint(model, chat, folder, dict(model.named_parameters()))
            folders[seed, tied, spread, head_width] = folder
        return folders[seed, tied, spread, head_width]

    return make


@pytest.fixture
def random_student(random_checkpoint, chat):
    """A student with random weights, sampled by the real sampler."""
    base = random_checkpoint()
    return Student(base, chat, Prompts(), HFSampler(chat.tokenizer, chat.end_ids, CPU, torch.float32), Process())
