"""Tokenizers with the special tokens, templates and habits of Qwen's and Llama's, made on the spot."""

import pytest
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import GenerationConfig, PreTrainedTokenizerFast

from reference.engines.chat import Chat
from reference.offline.tiny_model import CHAT_TEMPLATE

QWEN_SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA_SPECIALS = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"]
# As in Llama 3: the template writes the BOS and trims, headers close with a blank line, nothing follows a turn's end.
LLAMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{{ message.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
# As in Qwen2.5: a system turn of its own where the chat has none.
QWEN_TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}" + CHAT_TEMPLATE
)
# As in Llama 3.2: a system block of its own with two dates, the second today's unless one is given.
LLAMA_32_SPECIALS = [*LLAMA_SPECIALS, "<|end_of_text|>"]
LLAMA_32_TEMPLATE = (
    "{{- bos_token }}{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    '{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul 2024" %}'
    "{%- endif %}{%- endif %}"
    "{%- if messages[0].role == 'system' %}{%- set system = messages[0].content | trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n' }}"
    "{{- 'Today Date: ' + date_string + '\n\n' + system + '<|eot_id|>' }}"
    "{%- for message in messages %}{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' "
    "+ message.content | trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
PHI_SPECIALS = ["<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>"]
PHI_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}<|endoftext|>{% endif %}"
)
BOS, EOT, EOM, END_OF_TEXT = 0, 3, 4, 5
# Llama 3's own cut into pieces: line breaks stay together, and with the punctuation before them.
PIECES = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def byte_tokenizer(specials, **names):
    """Byte-level BPE over a few words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(PIECES, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["What is the answer\n\n\nStep 1\n\nuser\nassistant\n"] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


@pytest.fixture(scope="module")
def chatml():
    tokenizer = byte_tokenizer(QWEN_SPECIALS, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = CHAT_TEMPLATE
    return Chat(tokenizer, [tokenizer.eos_token_id])


@pytest.fixture(scope="module")
def llama():
    """As Llama's own: the tokenizer puts a BOS before every text, and padding is the end of the turn."""
    tokenizer = byte_tokenizer(
        LLAMA_SPECIALS, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", pad_token="<|eot_id|>"
    )
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]
    )
    tokenizer.chat_template = LLAMA_TEMPLATE
    return Chat(tokenizer, [3, 4])


@pytest.fixture(params=["chatml", "llama"])
def any_chat(request):
    return request.getfixturevalue(request.param)


def saved(tokenizer, folder, **generation):
    tokenizer.save_pretrained(folder)
    if generation:
        GenerationConfig(**generation).save_pretrained(folder)
    return folder


@pytest.fixture
def qwen(tmp_path):
    """A template that writes a system turn where the chat has none."""
    tokenizer = byte_tokenizer(QWEN_SPECIALS, eos_token="<|im_end|>")
    tokenizer.chat_template = QWEN_TEMPLATE
    return Chat.from_checkpoint(saved(tokenizer, tmp_path / "qwen"))


@pytest.fixture
def phi(tmp_path):
    """As in Phi-3: two ends stand after the last turn, and both are listed."""
    tokenizer = byte_tokenizer(PHI_SPECIALS, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = PHI_TEMPLATE
    return Chat.from_checkpoint(saved(tokenizer, tmp_path / "phi", eos_token_id=[0, 1]))


@pytest.fixture
def llama_32(tmp_path):
    """As the hub has it: three ends in the generation config, a BOS from the tokenizer besides the template's."""
    tokenizer = byte_tokenizer(LLAMA_32_SPECIALS, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", BOS)]
    )
    tokenizer.chat_template = LLAMA_32_TEMPLATE
    return Chat.from_checkpoint(saved(tokenizer, tmp_path / "llama", eos_token_id=[END_OF_TEXT, EOM, EOT]))
