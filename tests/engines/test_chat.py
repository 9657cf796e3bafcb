"""Which tokens of a chat are supervised: by the difference of two tokenisations, for two kinds of template."""

from datetime import date, datetime

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from reference.engines.chat import Chat, TokenizedExample
from reference.offline.tiny_model import CHAT_TEMPLATE
from reference.records import ExampleKind, Message, SFTExample
from tests.engines.conftest import (
    BOS,
    END_OF_TEXT,
    EOM,
    EOT,
    LLAMA_SPECIALS,
    LLAMA_TEMPLATE,
    QWEN_SPECIALS,
    byte_tokenizer,
    saved,
)

QUESTION, ANSWER = Message("user", "What is 2 + 2?"), Message("assistant", "2 + 2 = 4\n#### 4")


def supervised(chat, example):
    return list(example.token_ids[example.prompt_length :])


def test_the_answer_and_the_end_of_its_turn_are_supervised_and_nothing_else(any_chat):
    example = any_chat.example_ids([QUESTION, ANSWER])
    content = any_chat.tokenizer(ANSWER.content, add_special_tokens=False)["input_ids"]
    assert supervised(any_chat, example) == [*content, any_chat.tokenizer.eos_token_id]
    assert any_chat.tokenizer.decode(content) == ANSWER.content


def test_the_supervised_part_follows_the_prompt_that_the_sampler_reads(any_chat):
    """RL and evaluation start from `prompt_ids`, so SFT has to teach what comes after exactly that."""
    example = any_chat.example_ids([QUESTION, ANSWER])
    assert list(example.token_ids[: example.prompt_length]) == any_chat.prompt_ids([QUESTION])


def test_chatml_leaves_out_the_newline_behind_the_turn(chatml):
    whole = chatml.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}], return_dict=False
    )
    newline = chatml.tokenizer("\n")["input_ids"]
    assert whole[-2:] == [chatml.tokenizer.eos_token_id, *newline]
    example = chatml.example_ids([Message("user", "Hi"), Message("assistant", "Yes")])
    assert list(example.token_ids) == whole[:-1]


def test_there_is_one_bos_and_it_comes_from_the_template(llama):
    assert llama.tokenizer("Hi")["input_ids"][0] == 0  # left to itself the tokenizer adds another
    for ids in (llama.prompt_ids([QUESTION]), llama.example_ids([QUESTION, ANSWER]).token_ids):
        assert list(ids).count(0) == 1 and ids[0] == 0
    assert 0 not in llama.step_ids([QUESTION], "One.", "Two.").token_ids[1:]
    assert llama.count("Hi") == len(llama.tokenizer("Hi", add_special_tokens=False)["input_ids"])


def test_an_end_of_turn_that_is_also_the_padding_is_supervised(llama):
    """Masks that look for the padding id lose the end of turn here: the model would never learn to stop."""
    assert llama.tokenizer.pad_token_id == llama.tokenizer.eos_token_id
    assert supervised(llama, llama.example_ids([QUESTION, ANSWER]))[-1] == llama.tokenizer.eos_token_id


def test_only_the_last_turn_is_supervised(any_chat):
    turns = [Message("system", "Be brief."), QUESTION, ANSWER, Message("user", "Why?"), Message("assistant", "Sums.")]
    example = any_chat.example_ids(turns)
    assert any_chat.tokenizer.decode(supervised(any_chat, example)[:-1]) == "Sums."
    assert list(example.token_ids[: example.prompt_length]) == any_chat.prompt_ids(turns[:-1])


@pytest.mark.parametrize("content", ["4", "", " 4", "4 ", "4\n", "\u20ac 5 \u2028", "a" * 300])
def test_any_answer_keeps_the_prompt_as_it_is(any_chat, content):
    example = any_chat.example_ids([QUESTION, Message("assistant", content)])
    assert list(example.token_ids[: example.prompt_length]) == any_chat.prompt_ids([QUESTION])
    kept = content.strip() if "trim" in any_chat.tokenizer.chat_template else content
    assert any_chat.tokenizer.decode(supervised(any_chat, example)[:-1]) == kept
    assert supervised(any_chat, example)[-1] == any_chat.tokenizer.eos_token_id


def test_the_stored_base_masks_like_chatml(chat):
    example = chat.example_ids([QUESTION, ANSWER])
    assert chat.tokenizer.decode(supervised(chat, example)) == "2 + 2 = 4\n#### 4<|im_end|>"
    assert chat.tokenizer.decode(example.token_ids[: example.prompt_length]).endswith("<|im_start|>assistant\n")


def test_a_template_that_never_ends_the_turn_is_refused(chatml):
    tokenizer = byte_tokenizer(QWEN_SPECIALS, eos_token="<|im_end|>")
    tokenizer.chat_template = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    tokenizer.chat_template += "{% if add_generation_prompt %}assistant: {% endif %}"
    with pytest.raises(ValueError, match="end-of-turn"):
        Chat(tokenizer, [tokenizer.eos_token_id]).example_ids([QUESTION, ANSWER])


def test_a_template_that_rewrites_the_prompt_is_refused():
    """Some templates drop or add a part of the prompt once there is an answer: then no mask is right."""
    tokenizer = byte_tokenizer(QWEN_SPECIALS, eos_token="<|im_end|>")
    tokenizer.chat_template = "{{ messages | length }}" + CHAT_TEMPLATE
    with pytest.raises(ValueError, match="unanswered prompt"):
        Chat(tokenizer, [tokenizer.eos_token_id]).example_ids([QUESTION, ANSWER])


@pytest.mark.parametrize("turns", [[], [QUESTION], [QUESTION, ANSWER, QUESTION]])
def test_an_example_without_an_answer_is_refused(chatml, turns):
    with pytest.raises(ValueError, match="assistant message"):
        chatml.example_ids(turns)


def test_a_template_that_prints_the_date_prints_the_same_one_every_day(llama):
    """Llama 3.2's template writes today's date: SFT and RL on two days would read two prompts."""
    tokenizer = byte_tokenizer(LLAMA_SPECIALS, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
    tokenizer.chat_template = (
        "{% if not date_string is defined %}{% if strftime_now is defined %}"
        '{% set date_string = strftime_now("%d %b %Y") %}{% else %}{% set date_string = "26 Jul 2024" %}'
        "{% endif %}{% endif %}Today Date: {{ date_string }}" + LLAMA_TEMPLATE
    )
    chat = Chat(tokenizer, [3])
    prompt = tokenizer.decode(chat.prompt_ids([QUESTION]))
    whole = tokenizer.decode(chat.example_ids([QUESTION, ANSWER]).token_ids)
    assert "Today Date: " in prompt and date.today().strftime("%d %b %Y") not in prompt + whole


def test_a_steps_tokens_are_those_behind_its_context(any_chat):
    context, step = "Step 1: 2 + 2 = 4\n\n", "Step 2: 4 + 1 = 5"
    example = any_chat.step_ids([QUESTION], context, step)
    prompt = any_chat.prompt_ids([QUESTION])
    written = list(example.token_ids[len(prompt) :])
    assert list(example.token_ids[: len(prompt)]) == prompt
    assert written == any_chat.tokenizer(context + step, add_special_tokens=False)["input_ids"]
    assert any_chat.tokenizer.decode(supervised(any_chat, example)) == step


def test_without_a_context_the_whole_text_is_the_step(any_chat):
    example = any_chat.step_ids([QUESTION], "", "Step 1: 2 + 2 = 4")
    assert example.prompt_length == len(any_chat.prompt_ids([QUESTION]))
    assert any_chat.tokenizer.decode(supervised(any_chat, example)) == "Step 1: 2 + 2 = 4"


def test_a_token_across_the_border_counts_to_the_step(chatml):
    """A22: three line breaks are one token of this tokenizer, and the third belongs to the step."""
    border = chatml.tokenizer("\n\n\n")["input_ids"]
    assert len(border) == 1
    example = chatml.step_ids([QUESTION], "One.\n\n", "\nTwo.")
    assert supervised(chatml, example)[0] == border[0]
    assert chatml.tokenizer.decode(supervised(chatml, example)) == "\n\n\nTwo."


def test_a_letter_of_several_bytes_is_not_cut_at_the_border(any_chat):
    example = any_chat.step_ids([QUESTION], "5 \u20ac\n\n", "\u20ac 6")
    assert any_chat.tokenizer.decode(supervised(any_chat, example)) == "\u20ac 6"


def test_the_steps_of_a_trace_are_cut_out_of_one_tokenisation(any_chat):
    steps = ["Step 1: 2 + 2 = 4\n\n", "Step 2: 4 + 1 = 5\n\n\n", "\nStep 3: 5 \u20ac", "\u20ac\n#### 5"]
    token_ids, starts = any_chat.trace_ids([QUESTION], steps)
    prompt = any_chat.prompt_ids([QUESTION])
    assert list(token_ids) == prompt + any_chat.tokenizer("".join(steps), add_special_tokens=False)["input_ids"]
    assert starts[0] == len(prompt) and starts == sorted(starts)
    # Each token is of the step that its last character is of.
    offsets = any_chat.tokenizer("".join(steps), add_special_tokens=False, return_offsets_mapping=True)[
        "offset_mapping"
    ]
    step_of_character = [number for number, step in enumerate(steps) for _ in step]
    step_of_token = [step_of_character[end - 1] for _, end in offsets]
    assert starts == [len(prompt) + step_of_token.index(number) for number in range(len(steps))]
    for index in range(1, len(steps)):
        example = any_chat.step_ids([QUESTION], "".join(steps[:index]), "".join(steps[index:]))
        assert example == TokenizedExample(token_ids, starts[index])


def test_a_turn_with_two_ends_has_both_after_a_continuation_too(phi):
    messages = (QUESTION, Message("assistant", "One.\n\n#### 4"))
    last = phi.sft_ids(SFTExample("p", ExampleKind.LOCAL, messages, len("One.\n\n"), True))
    assert phi.tokenizer.decode(supervised(phi, last)) == "#### 4<|end|>\n<|endoftext|>"
    assert last.token_ids == phi.example_ids(messages).token_ids


@pytest.mark.parametrize("with_tail", [False, True])
def test_a_continuation_is_laid_out_as_a_step_and_ends_its_turn_only_where_it_says_so(any_chat, with_tail):
    context, step = "Step 1: 2 + 2 = 4\n\n", "Step 2: 4 + 1 = 5\n#### 5"
    messages = (QUESTION, Message("assistant", context + step))
    scored = any_chat.step_ids([QUESTION], context, step)
    middle, last = (SFTExample("p", ExampleKind.LOCAL, messages, len(context), ends) for ends in (False, True))
    assert any_chat.sft_ids(middle, with_tail) == scored
    ended = any_chat.sft_ids(last, with_tail)
    whole = any_chat.example_ids(messages, with_tail)
    assert ended == TokenizedExample(whole.token_ids, scored.prompt_length)  # nothing of this text blurs the borders
    assert ended.token_ids[len(scored.token_ids)] == any_chat.tokenizer.eos_token_id
    assert any_chat.sft_ids(SFTExample("p", ExampleKind.NEW, messages), with_tail) == whole


@pytest.mark.parametrize(("listed", "expected"), [([3, 4], (3, 4)), (3, (3,))])
def test_all_end_ids_of_the_generation_config_are_taken(llama, tmp_path, listed, expected):
    assert Chat.from_checkpoint(saved(llama.tokenizer, tmp_path, eos_token_id=listed)).end_ids == expected


def test_without_a_generation_config_the_tokenizer_names_the_end(llama, tmp_path):
    assert Chat.from_checkpoint(saved(llama.tokenizer, tmp_path)).end_ids == (3,)


def test_a_turn_that_ends_with_the_second_end_id_is_found(llama, tmp_path):
    llama_with_eom = Chat.from_checkpoint(saved(llama.tokenizer, tmp_path, eos_token_id=[3, 4]))
    llama_with_eom.tokenizer.chat_template = LLAMA_TEMPLATE.replace("<|eot_id|>", "<|eom_id|>")
    assert supervised(llama_with_eom, llama_with_eom.example_ids([QUESTION, ANSWER]))[-1] == 4


def test_a_checkpoint_that_cannot_chat_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="^cannot load a tokenizer from .*; give --model.path a folder with config.json"
    ):
        Chat.from_checkpoint(tmp_path)
    without_template = byte_tokenizer(QWEN_SPECIALS, eos_token="<|im_end|>")
    with pytest.raises(ValueError, match="chat template"):
        Chat.from_checkpoint(saved(without_template, tmp_path / "a"))
    without_end = byte_tokenizer(QWEN_SPECIALS)
    without_end.chat_template = CHAT_TEMPLATE
    with pytest.raises(ValueError, match="end-of-sequence"):
        Chat.from_checkpoint(saved(without_end, tmp_path / "b"))


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (CHAT_TEMPLATE.replace("<|im_end|>", ""), "no end-of-turn token"),
        ("{% for message in messages %}{{ message.content }}", "cannot be trained with"),
        ("{{ messages | length }}" + CHAT_TEMPLATE, "does not begin with the tokens"),
        ("{{ raise_exception('only users') }}", "only users"),
    ],
)
def test_a_template_that_cannot_be_trained_with_is_refused_at_the_start(tmp_path, template, says):
    tokenizer = byte_tokenizer(QWEN_SPECIALS, eos_token="<|im_end|>")
    tokenizer.chat_template = template
    with pytest.raises(ValueError, match=says):
        Chat.from_checkpoint(saved(tokenizer, tmp_path))


def test_a_tokenizer_that_cannot_write_numbers_is_refused(tmp_path):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), eos_token="<|im_end|>")
    tokenizer.chat_template = CHAT_TEMPLATE
    with pytest.raises(ValueError, match="cannot write '2 \\+ 3 = 5"):
        Chat.from_checkpoint(saved(tokenizer, tmp_path))


def test_a_default_system_turn_is_prompt_and_is_there_once(qwen):
    example = qwen.example_ids([QUESTION, ANSWER])
    prompt = qwen.tokenizer.decode(example.token_ids[: example.prompt_length])
    assert prompt.count("You help.") == 1 and prompt.endswith("<|im_start|>assistant\n")
    assert qwen.tokenizer.decode(supervised(qwen, example)) == ANSWER.content + "<|im_end|>"
    assert "You help." not in qwen.tokenizer.decode(qwen.prompt_ids([Message("system", "Be short."), QUESTION]))


@pytest.mark.parametrize("content", ["{", "[]", "7"])
def test_a_damaged_generation_config_is_named_and_not_passed_over(llama, tmp_path, content):
    """Without its list Llama's other ends of turn would be lost, and nobody would know."""
    saved(llama.tokenizer, tmp_path, eos_token_id=[3, 4])
    (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(ValueError, match="generation_config.json is damaged"):
        Chat.from_checkpoint(tmp_path)


def test_llama_32_has_three_ends_one_bos_and_supervises_the_answer_and_its_end(llama_32):
    assert llama_32.end_ids == (END_OF_TEXT, EOM, EOT)
    example = llama_32.example_ids([QUESTION, ANSWER])
    assert [at for at, token in enumerate(example.token_ids) if token == BOS] == [0]
    assert llama_32.tokenizer.decode(supervised(llama_32, example)) == ANSWER.content + "<|eot_id|>"
    prompt = llama_32.tokenizer.decode(llama_32.prompt_ids([QUESTION]))
    assert prompt.count("Cutting Knowledge Date") == 1 and prompt.endswith("assistant<|end_header_id|>\n\n")
    assert llama_32.prompt_ids([QUESTION]) == list(example.token_ids[: example.prompt_length])


def test_llama_32s_prompt_is_the_same_in_another_year(llama_32, monkeypatch):
    class InAnotherYear(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 2, 3)

    turns = [{"role": "user", "content": "Hi"}]
    prompt = llama_32.prompt_ids([QUESTION])
    undated = llama_32.tokenizer.apply_chat_template(turns, return_dict=False)
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", InAnotherYear)
    assert llama_32.tokenizer.apply_chat_template(turns, return_dict=False) != undated  # the clock was really moved
    assert llama_32.prompt_ids([QUESTION]) == prompt
