"""Graded word problems in GSM8K's format, made up from a seed: the offline world's data.

Unlike GSM8K: values stay in 0 to 99, numbers of operations are uniform over 1 to 6, the vocabulary is a few hundred
words, and there are four splits that leave the training distribution, one way each. Like GSM8K: one line a step,
calculator annotations, `#### answer`, and the share of lines that hold more than one operation.

    python -m reference.offline.word_problems --split train --count 5
"""

import argparse
import hashlib
import json
from random import Random

from reference.offline import story_templates
from reference.offline.story_templates import (
    EVERYDAY,
    MOSTLY_TIMES_AND_DIVIDE,
    Step,
    Story,
    draw,
    pick,
)
from reference.records import Problem

OUT_OF_DISTRIBUTION = ("ood_templates", "ood_operations", "ood_style", "ood_logic")
SPLITS = ("pretrain", "train", "test", *OUT_OF_DISTRIBUTION)

FAMILIES = (
    story_templates.running_count,
    story_templates.comparisons,
    story_templates.sums_over_people,
    story_templates.shopping,
    story_templates.sharing,
)
CHAIN_FAMILIES = (story_templates.running_count, story_templates.comparisons, story_templates.sharing)
NEW_FAMILIES = (story_templates.travel, story_templates.ages, story_templates.water)

MAX_COUNT = 1_000_000  # ids have six digits, so that they sort
SHARE_WITH_DISTRACTOR = 0.25

# The first byte of a question's SHA-256 says which splits may use it. Pre-training needs most of the questions.
PRETRAIN_BELOW = 208
TRAIN_BELOW = 232

# The chance that a line asks for two, and for three operations. Of the lines of GSM8K's training set that calculate,
# 86% hold one operation, 12% two, 2% more. These chances are larger: many a line has no next step that it may take in.
CHANCE_OF_TWO, CHANCE_OF_THREE = 0.19, 0.08
OOD_CHANCE_OF_TWO, OOD_CHANCE_OF_THREE = 0.4, 0.3


def generate(split: str, count: int, seed: int) -> list[Problem]:
    """The first `count` problems of a split. Problem i depends on (seed, split, i) alone: longer lists only append.

    No question is in two of pretrain, train and the rest, whatever the seeds. Inside a split one may, rarely, repeat.

    Raises:
        ValueError: the split is unknown, or the count is not in 0 to 1,000,000.
    """
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}; choose one of {', '.join(SPLITS)}")
    if not 0 <= count <= MAX_COUNT:
        raise ValueError(f"count is {count}; ask for 0 to {MAX_COUNT} problems")
    return [_problem(split, index, seed) for index in range(count)]


def _problem(split: str, index: int, seed: int) -> Problem:
    """Problem `index` of the split. A question that belongs to another split is drawn again."""
    rng = Random(f"{seed}:{split}:{index}")
    owner = split if split in ("pretrain", "train") else "evaluation"
    while True:
        story = _story(rng, split)
        question = " ".join(story.sentences)
        if _owner(question) == owner:
            break
    lines = [*(story.remarks or _solution_lines(rng, split, story.steps)), f"#### {story.answer}"]
    return Problem(f"{split}-{index:06d}", question, str(story.answer), "\n".join(lines))


def _owner(question: str) -> str:
    """Who may use a question. A stable hash of the text: Python's own `hash` changes from process to process."""
    byte = hashlib.sha256(question.encode()).digest()[0]
    if byte < PRETRAIN_BELOW:
        return "pretrain"
    return "train" if byte < TRAIN_BELOW else "evaluation"


def _story(rng: Random, split: str) -> Story:
    """One story of the split's distribution."""
    if split == "ood_style":
        return story_templates.compact(rng)
    if split == "ood_logic":
        return story_templates.ordering(rng)
    if split == "ood_templates":
        story = pick(rng, NEW_FAMILIES)(rng, draw(rng, 1, 6), EVERYDAY)
    elif split == "ood_operations":
        story = pick(rng, CHAIN_FAMILIES)(rng, draw(rng, 4, 8), MOSTLY_TIMES_AND_DIVIDE)
    else:
        story = pick(rng, FAMILIES)(rng, draw(rng, 1, 6), EVERYDAY)
    if rng.random() < SHARE_WITH_DISTRACTOR:
        story_templates.add_distractor(rng, story)
    return story


def _solution_lines(rng: Random, split: str, steps: list[Step]) -> list[str]:
    """The steps as lines, some of them compound: a line takes in the next step where it asks for it and may."""
    lines, expression, operators, size = [], "", "", 0
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        if not expression:
            size = _line_size(rng, split)
            expression = f"{step.left} {step.operator} {step.right}"
        elif step.carried == "left":
            expression = f"{expression} {step.operator} {step.right}"
        else:
            expression = f"{step.left} {step.operator} {expression}"
        operators += step.operator
        if following is None or len(operators) >= size or not _may_take_in(operators, following):
            lines.append(_line(expression, step))
            expression = operators = ""
    return lines


def _line_size(rng: Random, split: str) -> int:
    """How many operations a line asks for: 1, 2 or 3."""
    two, three = CHANCE_OF_TWO, CHANCE_OF_THREE
    if split == "ood_operations":
        two, three = OOD_CHANCE_OF_TWO, OOD_CHANCE_OF_THREE
    chance = rng.random()
    if chance < three:
        return 3
    return 2 if chance < three + two else 1


def _may_take_in(operators: str, step: Step) -> bool:
    """Whether the step can follow in the same line with no need of parentheses, which the solutions never have."""
    if not step.carried:
        return False
    binds_tightly = "+" not in operators and "-" not in operators
    if step.carried == "left":
        return step.operator in "+-" or binds_tightly
    return step.operator in "+-" and binds_tightly


def _line(expression: str, step: Step) -> str:
    """`Tom has 3 * 4 = <<3*4=12>>12 apples.`"""
    noun = step.noun[:-1] if step.result == 1 else step.noun
    return f"{step.lead} {expression} = <<{expression.replace(' ', '')}={step.result}>>{step.result} {noun}."


def main() -> None:
    """Print problems as JSON lines with GSM8K's two fields."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for problem in generate(arguments.split, arguments.count, arguments.seed):
        print(json.dumps({"question": problem.question, "answer": problem.solution}))


if __name__ == "__main__":
    main()
