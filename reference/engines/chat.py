"""Chat template -> token ids, and which of them are supervised.

The mask is the difference of two tokenisations, prompt and prompt + answer, never a string search; y is the answer and
the token that ends the turn, without the newline that some templates put behind it: it is never generated
(ambiguity A54).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from jinja2 import TemplateError
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from reference.records import Message, SFTExample

# Llama 3.2's template prints today's date unless it is given one: a prompt must not change with the calendar.
PROMPT_DATE = "26 Jul 2024"

# What every tokenizer for this task has to give back as it was; one without a vocabulary does not.
PROBE = "2 + 3 = 5\n#### 5"


@dataclass(frozen=True)
class TokenizedExample:
    """Token ids of a whole chat; the supervised ones are those from `prompt_length` on."""

    token_ids: tuple[int, ...]
    prompt_length: int


def text_of(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """The text of these ids, without special tokens such as the end of a turn."""
    return tokenizer.decode(list(token_ids), skip_special_tokens=True)  # type: ignore[return-value]  # one list: one text


class Chat:
    """One checkpoint's tokenizer with its chat template and its end-of-turn ids."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end_ids: Sequence[int]):
        self.tokenizer = tokenizer
        self.end_ids = tuple(end_ids)

    @classmethod
    def from_checkpoint(cls, checkpoint: Path | str) -> "Chat":
        """The tokenizer of a checkpoint directory or hub name, with every end id its generation config lists.

        Raises:
            ValueError: no tokenizer, no chat template, no end-of-sequence id, a damaged generation config, or a
                template that the mask cannot be taken from.
        """
        try:
            tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())  # it may come in several lines
            raise ValueError(
                f"cannot load a tokenizer from {str(checkpoint)!r} ({reason}); give --model.path a folder with "
                "config.json, safetensors and tokenizer.json"
            ) from error
        if tokenizer.chat_template is None:
            raise ValueError(f"the tokenizer in {str(checkpoint)!r} has no chat template; take an instruct model")
        if tokenizer.decode(tokenizer(PROBE, add_special_tokens=False)["input_ids"]) != PROBE:
            raise ValueError(f"the tokenizer in {str(checkpoint)!r} cannot write {PROBE!r}; is it complete?")
        end_ids = _end_ids(checkpoint) or [tokenizer.eos_token_id]
        if end_ids == [None]:
            raise ValueError(f"the tokenizer in {str(checkpoint)!r} names no end-of-sequence token")
        chat = cls(tokenizer, end_ids)
        try:
            chat.example_ids((Message("user", PROBE), Message("assistant", PROBE)))
        except (ValueError, TemplateError) as error:
            raise ValueError(f"the chat template in {str(checkpoint)!r} cannot be trained with: {error}") from error
        return chat

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The chat so far and the opening of the assistant's turn. The template alone adds special tokens."""
        return self._templated(messages, add_generation_prompt=True)

    def _templated(self, messages: Sequence[Message], add_generation_prompt: bool) -> list[int]:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        return self.tokenizer.apply_chat_template(  # type: ignore[return-value]  # ids, as without return_dict
            turns, add_generation_prompt=add_generation_prompt, return_dict=False, date_string=PROMPT_DATE
        )

    def sft_ids(self, example: SFTExample, with_tail: bool = False) -> TokenizedExample:
        """x and y of Eq. 21 for any SFT example; `with_tail` as in `example_ids`.

        A local sample is laid out as in Eq. 8: without an end of turn its loss is, before training, Eq. 8 of this step
        after this context. Raises as `example_ids`.
        """
        said, begin = example.messages[-1].content, example.supervised_from
        if begin == 0 and example.ends_turn:
            return self.example_ids(example.messages, with_tail)
        step = self.step_ids(example.messages[:-1], said[:begin], said[begin:])
        if not example.ends_turn:
            return step
        whole = self.example_ids(example.messages, with_tail)
        answer = whole.token_ids[whole.prompt_length :]
        end = next(at for at, token in enumerate(answer) if token in self.end_ids)
        return TokenizedExample(step.token_ids + answer[end:], step.prompt_length)

    def example_ids(self, messages: Sequence[Message], with_tail: bool = False) -> TokenizedExample:
        """A supervised chat, cut after the token that ends the assistant's last turn.

        `with_tail`: with what the template writes behind it, as verl trains (ambiguity A54).

        Raises:
            ValueError: the last turn is not the assistant's, or the template does not write prompt + answer + end.
        """
        if not messages or messages[-1].role != "assistant":
            raise ValueError("an SFT example ends with an assistant message")
        prompt = self.prompt_ids(messages[:-1])
        whole = self._templated(messages, add_generation_prompt=False)
        if whole[: len(prompt)] != prompt:
            raise ValueError(
                "an answered chat does not begin with the tokens of the unanswered prompt: mend the chat template, "
                f"or an answer that begins with a space: {messages[-1].content[:40]!r}"
            )
        ends = [at for at in range(len(prompt), len(whole)) if whole[at] in self.end_ids]
        if not ends:
            raise ValueError("this chat template ends the assistant's turn with no end-of-turn token; mend it")
        return TokenizedExample(tuple(whole if with_tail else whole[: ends[-1] + 1]), len(prompt))

    def step_ids(self, messages: Sequence[Message], context: str, step: str) -> TokenizedExample:
        """q, P_i and s_i for Eq. 8: the step is what the assistant writes next, after its own words so far."""
        token_ids, starts = self.trace_ids(messages, [context, step])
        return TokenizedExample(token_ids, starts[1])

    def trace_ids(self, messages: Sequence[Message], steps: Sequence[str]) -> tuple[tuple[int, ...], list[int]]:
        """q and all steps as the assistant writes them, and where in these ids the tokens of each step begin.

        The steps are one text, tokenised once, with the blank lines between them as they stand in the trace:
        `.` and `.\\n\\n` are different tokens. One that spans a border counts to the later step (ambiguity A22).
        """
        prompt = self.prompt_ids(messages)
        encoded = self.tokenizer("".join(steps), add_special_tokens=False, return_offsets_mapping=True)
        ends = [end for _, end in encoded["offset_mapping"]]
        borders = [0, *accumulate(len(step) for step in steps)]
        starts = [len(prompt) + sum(end <= border for end in ends) for border in borders[:-1]]
        return tuple(prompt + encoded["input_ids"]), starts

    def count(self, text: str) -> int:
        """Length of a text in the student's tokens."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def _end_ids(checkpoint: Path | str) -> list[int]:
    try:
        ids = GenerationConfig.from_pretrained(checkpoint).eos_token_id
    except (OSError, AttributeError, TypeError) as error:
        path = Path(checkpoint) / "generation_config.json"
        if path.exists():
            raise ValueError(f"{path} is damaged ({error}); mend or remove it") from error
        return []  # a checkpoint need not have one
    if ids is None:
        return []
    return [ids] if isinstance(ids, int) else list(ids)
