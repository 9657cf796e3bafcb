"""The stories of the offline world: what happens, told in sentences, and the operations behind it.

A story is drawn forwards: start from a value, draw an operation that keeps every value inside 0 to 99, tell it.
So each story has an answer by construction and none is ever thrown away. The vocabulary is small and regular,
because a model of a few hundred thousand parameters has to read it.
"""

from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")

LARGEST = 99
LARGEST_START = 50
LARGEST_ADDEND = 40
LARGEST_FACTOR = 9

# A mix is a bag of operators to draw from; one that does not fit the value at hand is drawn again.
EVERYDAY = "++--*/"
MOSTLY_TIMES_AND_DIVIDE = "+-***//////"  # a division fits seldom, hence the many slashes

# The lists that `distinct` draws from have a prime length.
NAMES = tuple(
    "Ann Ben Cal Dan Eve Fay Gus Hal Ida Jan Kim Lee Max Nia Ola Pam Ray Sam Tom Una Val Wes Zoe Amy Bob Cleo Dora"
    " Emma Finn Gina Hugo Ivan Jack Kate Liam Mona Noah Omar Paul Rosa Sara".split()
)
NOUNS = tuple(
    "apples pears plums lemons cookies muffins rolls nuts eggs seeds flowers cards stamps coins shells stones marbles"
    " beads buttons books comics pens pencils crayons stickers badges balls toys kites ribbons rings hats socks cups"
    " plates spoons forks candles tickets photos posters blocks keys".split()
)
CONTAINERS = ("bags", "jars", "baskets", "trays", "packs")
VEHICLES = ("bus", "train", "truck", "car", "boat", "plane", "bike", "taxi", "van", "ship", "tram")
VESSELS = ("tank", "pool", "barrel", "tub", "pond", "well", "kettle")
ANIMALS = ("cats", "dogs", "birds", "frogs", "ducks", "goats", "hens")

TIMES = ("", "", "twice", "three times", "4 times", "5 times", "6 times", "7 times", "8 times", "9 times")
PARTS = ("", "", "half", "a third", "a quarter", "a fifth", "a sixth", "a seventh", "an eighth", "a ninth")
DIVISORS = tuple(tuple(d for d in range(2, LARGEST_FACTOR + 1) if d < v and v % d == 0) for v in range(LARGEST + 1))

DOZEN = 12
SHARE_OF_DOZENS = 0.05
SHARE_TOLD_BACKWARDS = 0.25

IRRELEVANT = (
    "{who} also has {number} {animals}.",
    "{who} saw {number} {animals} today.",
    "{who} waited {number} minutes.",
    "There are {number} {animals} on the farm of {who}.",
)


class Step(NamedTuple):
    """One operation of a solution: "`lead` 3 + 4 = 7 `noun`."

    `carried` names the operand ("left", "right") that is the result of the step before and is needed nowhere else,
    so that the two steps may share a line; "" where there is none.
    """

    lead: str
    left: int
    operator: str
    right: int
    result: int
    noun: str
    carried: str


class Story(NamedTuple):
    """The sentences, the last of which asks; the answer; and what leads to it: steps, or remarks without a sum."""

    sentences: list[str]
    answer: int
    steps: list[Step]
    remarks: list[str]


class Wording(NamedTuple):
    """How one kind of story is told. `told` has, by operator, the templates to pick from.

    Their fields: {who}, {other}, {noun}, {operand} in digits, and {amount}: "a dozen" for + and -, "twice" for *,
    "half" for /.
    """

    start: str
    told: dict[str, tuple[str, ...]]
    lead: str
    question: str


RUNNING = Wording(
    start="{who} has {amount} {noun}.",
    told={
        "+": (
            "{who} finds {amount} more {noun}.",
            "{who} buys {amount} more {noun}.",
            "{other} gives {who} {amount} {noun}.",
            "{who} wins {amount} {noun}.",
        ),
        "-": (
            "{who} loses {amount} {noun}.",
            "{who} gives {amount} {noun} to {other}.",
            "{who} sells {amount} {noun}.",
        ),
        "*": ("A month later {who} has {amount} as many {noun}.", "Soon {who} has {amount} as many {noun}."),
        "/": (
            "{who} keeps only {amount} of the {noun}.",
            "{who} puts the {noun} into {operand} equal piles and keeps one pile.",
        ),
    },
    lead="{who} has",
    question="How many {noun} does {who} have now?",
)
HAVING = Wording(
    start="{who} has {amount} {noun}.",
    told={
        "+": ("{who} has {amount} more {noun} than {other}.",),
        "-": ("{who} has {amount} fewer {noun} than {other}.",),
        "*": ("{who} has {amount} as many {noun} as {other}.",),
        "/": ("{who} has {amount} as many {noun} as {other}.",),
    },
    lead="{who} has",
    question="How many {noun} does {who} have?",
)
PAYING = Wording(
    start="{who} buys one of the {noun} for {operand} dollars.",
    told={
        "+": ("Delivery adds {operand} dollars.", "{who} also pays {operand} dollars for a cake."),
        "-": ("A coupon takes {operand} dollars off.", "{other} pays {operand} dollars of it."),
        "*": ("{who} orders all of it {amount}.",),
        "/": ("A sale cuts the cost to {amount}.", "{who} is one of {operand} people who share the cost equally."),
    },
    lead="{who} pays",
    question="How many dollars does {who} pay?",
)
ON_TABLE = Wording(
    start="There are {amount} {noun} on a table.",
    told={
        "+": ("{who} adds {amount} {noun}.", "Then {amount} more {noun} are found."),
        "-": ("{who} takes away {amount} {noun}.", "Then {amount} {noun} are thrown away."),
        "*": ("Soon there are {amount} as many {noun}.",),
        "/": ("{operand} children share the {noun} equally.",),
    },
    lead="There are",
    question="How many {noun} are there now?",
)
PER_CHILD = Wording(
    start="",  # a story only ever comes here from the table
    told={
        "+": ("Each child gets {amount} more {noun}.",),
        "-": ("Each child loses {amount} {noun}.", "Each child gives {amount} {noun} to {who}."),
        "*": ("Soon each child has {amount} as many {noun}.",),
        "/": ("Each child keeps only {amount} of the {noun}.",),
    },
    lead="Each child has",
    question="How many {noun} does each child have now?",
)
TRAVELLING = Wording(
    start="The {who} travels {amount} {noun}.",
    told={
        "+": ("The {who} travels {amount} {noun} farther than the {other}.",),
        "-": ("The {who} travels {amount} {noun} less than the {other}.",),
        "*": ("The {who} travels {amount} as far as the {other}.",),
        "/": ("The {who} travels {amount} as far as the {other}.",),
    },
    lead="The {who} travels",
    question="How many {noun} does the {who} travel?",
)
AGEING = Wording(
    start="{who} is {amount} {noun} old.",
    told={
        "+": ("{who} is {amount} {noun} older than {other}.",),
        "-": ("{who} is {amount} {noun} younger than {other}.",),
        "*": ("{who} is {amount} as old as {other}.",),
        "/": ("{who} is {amount} as old as {other}.",),
    },
    lead="The age of {who} is",
    question="How many {noun} old is {who}?",
)
FILLING = Wording(
    start="A {who} holds {amount} {noun} of water.",
    told={
        "+": ("Rain brings {amount} {noun}.", "{other} pours in {amount} {noun}."),
        "-": ("Then {amount} {noun} leak out.", "{other} pumps out {amount} {noun}."),
        "*": ("After a storm the {who} holds {amount} as much.",),
        "/": ("Only {amount} of the water stays.",),
    },
    lead="The {who} holds",
    question="How many {noun} of water does the {who} hold at the end?",
)


class Compact(NamedTuple):
    """One problem in SVAMP's manner: the operators in turn, then templates. {decoy} {others} never matter."""

    operators: str
    told: str
    question: str
    lead: str


COMPACT = (
    Compact(
        "-",
        "{who} had {start} {noun} and {decoy} {others}.",
        "If {who} gave {first} {noun} to {other}, how many {noun} did {who} have left?",
        "{who} had",
    ),
    Compact(
        "+",
        "{who} brought {start} {noun} and {decoy} {others}, and {other} brought {first} {noun}.",
        "How many {noun} did {who} and {other} bring in all?",
        "They brought",
    ),
    Compact(
        "*",
        "A box held {start} {noun} and a crate held {decoy} {others}.",
        "How many {noun} did {who} find in {first} boxes?",
        "{who} found",
    ),
    Compact(
        "/",
        "{who} packed {start} {noun} and {decoy} {others}.",
        "If the {noun} went equally into {first} boxes, how many {noun} were in each box?",
        "Each box had",
    ),
    Compact(
        "-+",
        "{who} had {start} {noun} and {decoy} {others}.",
        "If {who} dropped {first} {noun} and picked up {second} {noun}, how many {noun} did {who} end up with?",
        "{who} had",
    ),
    Compact(
        "*-",
        "{who} carried {first} boxes with {start} {noun} each, and {decoy} {others}.",
        "After {who} used {second} {noun}, how many {noun} remained?",
        "{who} had",
    ),
    Compact(
        "/+",
        "{who} split {start} {noun} into {first} equal parts, and kept one part and {decoy} {others}.",
        "If {other} brought {second} {noun}, how many {noun} did {who} end up with?",
        "{who} had",
    ),
)

# (more, less, most): words to order people by.
ORDERS = (("taller", "shorter", "tallest"), ("older", "younger", "oldest"), ("faster", "slower", "fastest"))


def draw(rng: Random, low: int, high: int) -> int:
    """A whole number from low to high, both included; several times faster than `rng.randint`, which counts here."""
    return low + int(rng.random() * (high - low + 1))


def pick(rng: Random, items: Sequence[Item]) -> Item:
    """One of the items."""
    return items[int(rng.random() * len(items))]


def distinct(rng: Random, words: Sequence[str], count: int) -> list[str]:
    """`count` different words: a start and a stride, which never repeats since the number of words is prime."""
    start, stride = draw(rng, 0, len(words) - 1), draw(rng, 1, len(words) - 1)
    return [words[(start + i * stride) % len(words)] for i in range(count)]


def draw_count(rng: Random, low: int, high: int) -> int:
    """A number of things; a dozen more often than chance, since it is the one number with a word of its own."""
    if low <= DOZEN <= high and rng.random() < SHARE_OF_DOZENS:
        return DOZEN
    return draw(rng, low, high)


def draw_operand(rng: Random, value: int, operator: str, ceiling: int) -> int | None:
    """A second operand that keeps the result whole and in 1 to `ceiling`; None where there is none.

    Never 1, which would need the singular, and never a result of 0, which would make the rest of the story trivial.
    """
    if operator == "/":
        return pick(rng, DIVISORS[value]) if DIVISORS[value] else None
    if operator == "*":
        high = min(LARGEST_FACTOR, ceiling // value)
        return draw(rng, 2, high) if high >= 2 else None
    high = min(LARGEST_ADDEND, ceiling - value) if operator == "+" else value - 1
    return draw_count(rng, 2, high) if high >= 2 else None


def apply(left: int, operator: str, right: int) -> int:
    """`left operator right`; divisions are exact by construction."""
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    return left * right if operator == "*" else left // right


def draw_operation(rng: Random, value: int, mix: str, ceiling: int = LARGEST) -> tuple[str, int]:
    """An operator of the mix and its second operand. A mix with both + and - always has one that fits."""
    while True:
        operator = pick(rng, mix)
        operand = draw_operand(rng, value, operator, ceiling)
        if operand is not None:
            return operator, operand


def amount(rng: Random, operator: str, operand: int) -> str:
    """The operand in words where English has them, so that a solution needs numbers that the question does not show."""
    if operator == "*":
        return TIMES[operand]
    if operator == "/":
        return PARTS[operand]
    return "a dozen" if operand == DOZEN and rng.random() < 0.5 else str(operand)


def sentence(rng: Random, template: str, cast: tuple[str, str, str], operator: str, operand: int) -> str:
    """The template with its fields filled in; the cast is (who, other, noun)."""
    who, other, noun = cast
    words = amount(rng, operator, operand)
    return template.format(who=who, other=other, noun=noun, operand=operand, amount=words)


def start_sentence(rng: Random, wording: Wording, cast: tuple[str, str, str], value: int) -> str:
    """The opening; its number is worded as an added one would be."""
    return sentence(rng, wording.start, cast, "+", value)


def ask(wording: Wording, cast: tuple[str, str, str]) -> str:
    """The question at the end."""
    who, _, noun = cast
    return wording.question.format(who=who, noun=noun)


def change(rng: Random, wording: Wording, cast: tuple[str, str, str], value: int, mix: str) -> tuple[str, Step]:
    """One event that turns `value` into another: its sentence and its step."""
    operator, operand = draw_operation(rng, value, mix)
    told = sentence(rng, pick(rng, wording.told[operator]), cast, operator, operand)
    who, _, noun = cast
    result = apply(value, operator, operand)
    return told, Step(wording.lead.format(who=who), value, operator, operand, result, noun, "left")


def one_quantity(rng: Random, wording: Wording, cast: tuple[str, str, str], operations: int, mix: str) -> Story:
    """A quantity that changes `operations` times."""
    value = draw_count(rng, 2, LARGEST_START)
    sentences, steps = [start_sentence(rng, wording, cast, value)], []
    for _ in range(operations):
        told, step = change(rng, wording, cast, value, mix)
        sentences.append(told)
        steps.append(step)
        value = step.result
    return Story([*sentences, ask(wording, cast)], value, steps, [])


def relations(
    rng: Random, wording: Wording, people: Sequence[str], noun: str, mix: str, ceiling: int
) -> tuple[list[int], list[str], list[Step]]:
    """Each of the people compared with the one before: their values, the sentences and the steps.

    A share is told backwards, so that the first sentence is not always the one to start from.
    """
    value = draw_count(rng, 2, min(LARGEST_START, ceiling))
    values, sentences, steps = [value], [start_sentence(rng, wording, (people[0], "", noun), value)], []
    for other, who in pairwise(people):
        operator, operand = draw_operation(rng, value, mix, ceiling)
        sentences.append(sentence(rng, pick(rng, wording.told[operator]), (who, other, noun), operator, operand))
        result = apply(value, operator, operand)
        steps.append(Step(wording.lead.format(who=who), value, operator, operand, result, noun, "left"))
        value = result
        values.append(value)
    if rng.random() < SHARE_TOLD_BACKWARDS:
        sentences.reverse()
    return values, sentences, steps


def compared(rng: Random, wording: Wording, people: Sequence[str], noun: str, mix: str) -> Story:
    """A chain of comparisons that asks for its last member."""
    values, sentences, steps = relations(rng, wording, people, noun, mix, LARGEST)
    return Story([*sentences, ask(wording, (people[-1], "", noun))], values[-1], steps, [])


def running_count(rng: Random, operations: int, mix: str) -> Story:
    """One person gets, gives away and loses things."""
    who, other = distinct(rng, NAMES, 2)
    return one_quantity(rng, RUNNING, (who, other, pick(rng, NOUNS)), operations, mix)


def comparisons(rng: Random, operations: int, mix: str) -> Story:
    """More than, fewer than, twice as many as, half as many as."""
    return compared(rng, HAVING, distinct(rng, NAMES, operations + 1), pick(rng, NOUNS), mix)


def sums_over_people(rng: Random, operations: int, mix: str) -> Story:
    """Comparisons, then how many the last few have together; people outside the chain have a number of their own."""
    num_summed = draw(rng, 2, min(4, operations + 1))
    num_relations = operations - (num_summed - 1)
    people = distinct(rng, NAMES, max(num_summed, num_relations + 1))
    noun, ceiling = pick(rng, NOUNS), LARGEST // num_summed
    values, sentences, steps = relations(rng, HAVING, people[: num_relations + 1], noun, mix, ceiling)
    for who in people[num_relations + 1 :]:
        values.append(draw_count(rng, 2, ceiling))
        sentences.append(start_sentence(rng, HAVING, (who, "", noun), values[-1]))
    first = len(people) - num_summed
    # A value that the sum needs again must keep a line of its own.
    steps = [step._replace(carried="") if i >= first else step for i, step in enumerate(steps)]
    steps += sum_steps(people[first:], values[first:], noun, last_is_carried=num_summed == 2 and num_relations > 0)
    crowd = f"{', '.join(people[first:-1])} and {people[-1]}"
    question = f"How many {noun} do {crowd} have together?"
    return Story([*sentences, question], steps[-1].result, steps, [])


def sum_steps(people: Sequence[str], values: Sequence[int], noun: str, last_is_carried: bool) -> list[Step]:
    """The values added up one by one. `last_is_carried`: the last value is the result of the step just before."""
    total = values[0] + values[1]
    carried = "right" if last_is_carried else ""
    steps = [Step(f"{people[0]} and {people[1]} have", values[0], "+", values[1], total, noun, carried)]
    for who, value in zip(people[2:], values[2:], strict=True):
        steps.append(Step(f"With {who} that is", total, "+", value, total + value, noun, "left"))
        total += value
    return steps


def shopping(rng: Random, operations: int, mix: str) -> Story:
    """So many things at so many dollars, more things, coupons and delivery; perhaps the change at the end."""
    who, other = distinct(rng, NAMES, 2)
    items = distinct(rng, NOUNS, operations + 1)
    cast = (who, other, "dollars")
    sentences, steps = [], []
    if rng.random() < 0.7:
        told, step = purchase(rng, f"{who} buys", f"{who} pays", items[0], LARGEST)
        sentences, steps, total = [told], [step], step.result
    else:
        total = draw(rng, 2, LARGEST_START)
        sentences = [start_sentence(rng, PAYING, (who, other, items[0]), total)]
    while len(steps) < operations:
        num_left = operations - len(steps)
        if num_left == 1 and total < LARGEST and rng.random() < 0.4:
            return with_change(rng, who, total, sentences, steps)
        if num_left >= 2 and total <= 80 and rng.random() < 0.4:
            item = items[len(steps)]
            told, step = purchase(rng, f"{who} also buys", f"The {item} cost", item, LARGEST - total)
            both = total + step.result
            steps += [step, Step(f"{who} pays", total, "+", step.result, both, "dollars", "right")]
        else:
            told, step = change(rng, PAYING, cast, total, mix)
            steps.append(step)
        sentences.append(told)
        total = steps[-1].result
    return Story([*sentences, ask(PAYING, cast)], total, steps, [])


def purchase(rng: Random, verb: str, lead: str, item: str, ceiling: int) -> tuple[str, Step]:
    """Some things at a price each: the sentence and the step. `ceiling` is at least 18, twice the largest price."""
    price = draw(rng, 2, LARGEST_FACTOR)
    count = draw_count(rng, 2, min(20, ceiling // price))
    told = f"{verb} {amount(rng, '+', count)} {item} for {price} dollars each."
    return told, Step(lead, count, "*", price, count * price, "dollars", "")


def with_change(rng: Random, who: str, total: int, sentences: list[str], steps: list[Step]) -> Story:
    """The purchase paid with too much money; asks for what comes back."""
    paid = draw(rng, total + 1, LARGEST)
    step = Step(f"{who} gets back", paid, "-", total, paid - total, "dollars", "right")
    ending = [f"{who} pays with {paid} dollars.", f"How many dollars does {who} get back?"]
    return Story(sentences + ending, step.result, [*steps, step], [])


def sharing(rng: Random, operations: int, mix: str) -> Story:
    """Bags of things on a table, and children who share them; from the first division on it is about each child."""
    wording, cast = ON_TABLE, (pick(rng, NAMES), "", pick(rng, NOUNS))
    noun = cast[2]
    steps = []
    if rng.random() < 0.6:
        bags, each = draw(rng, 2, 9), draw_count(rng, 2, 11)
        value = bags * each
        told = f"There are {bags} {pick(rng, CONTAINERS)} with {amount(rng, '+', each)} {noun} each."
        steps.append(Step("There are", bags, "*", each, value, noun, ""))
    else:
        value = draw_count(rng, 2, LARGEST)
        told = start_sentence(rng, wording, cast, value)
    sentences = [told]
    while len(steps) < operations:
        told, step = change(rng, wording, cast, value, mix)
        if step.operator == "/":
            wording = PER_CHILD
            step = step._replace(lead=wording.lead)
        sentences.append(told)
        steps.append(step)
        value = step.result
    return Story([*sentences, ask(wording, cast)], value, steps, [])


def travel(rng: Random, operations: int, mix: str) -> Story:
    """How far vehicles go."""
    return compared(rng, TRAVELLING, distinct(rng, VEHICLES, operations + 1), "miles", mix)


def ages(rng: Random, operations: int, mix: str) -> Story:
    """How old people are."""
    return compared(rng, AGEING, distinct(rng, NAMES, operations + 1), "years", mix)


def water(rng: Random, operations: int, mix: str) -> Story:
    """A tank that fills and leaks."""
    return one_quantity(rng, FILLING, (pick(rng, VESSELS), pick(rng, NAMES), "liters"), operations, mix)


def compact(rng: Random) -> Story:
    """One or two operations in two dense sentences, with a quantity that does not matter."""
    shape = pick(rng, COMPACT)
    who, other = distinct(rng, NAMES, 2)
    noun, others = distinct(rng, NOUNS, 2)
    lead = shape.lead.format(who=who)
    start, steps = compact_steps(rng, shape.operators, lead, noun)
    template = f"{shape.told} {shape.question}"
    told = template.format(
        who=who,
        other=other,
        noun=noun,
        others=others,
        start=start,
        decoy=draw(rng, 2, LARGEST),
        first=steps[0].right,
        second=steps[-1].right,
    )
    return Story([told], steps[-1].result, steps, [])


def compact_steps(rng: Random, operators: str, lead: str, noun: str) -> tuple[int, list[Step]]:
    """A start from which every operator in turn has an operand, and the steps; drawn again until it does."""
    while True:
        start = value = draw(rng, 3, LARGEST)
        steps = []
        for operator in operators:
            operand = draw_operand(rng, value, operator, LARGEST)
            if operand is None:
                break
            result = apply(value, operator, operand)
            steps.append(Step(lead, value, operator, operand, result, noun, "left"))
            value = result
        if len(steps) == len(operators):
            return start, steps


def ordering(rng: Random) -> Story:
    """Who is taller than whom, in shuffled clues; asks for a position, or for how many are taller."""
    more, less, most = pick(rng, ORDERS)
    people = distinct(rng, NAMES, draw(rng, 3, 6))
    clues = [
        f"{high} is {more} than {low}." if rng.random() < 0.5 else f"{low} is {less} than {high}."
        for high, low in pairwise(people)
    ]
    rng.shuffle(clues)
    position = draw(rng, 1, len(people))
    who = people[position - 1]
    order = f"The {most} comes first: {', '.join(people)}."
    if rng.random() < 0.5:
        question = f"If the {most} is number 1, what number is {who}?"
        return Story([*clues, question], position, [], [order, f"{who} is number {position}."])
    question = f"How many of them are {more} than {who}?"
    before = position - 1
    counted = f"{before} of them come before {who}." if before != 1 else f"1 of them comes before {who}."
    return Story([*clues, question], before, [], [order, counted])


def add_distractor(rng: Random, story: Story) -> None:
    """Put a quantity that does not matter somewhere between the opening and the question."""
    told = pick(rng, IRRELEVANT).format(who=pick(rng, NAMES), number=draw(rng, 2, LARGEST), animals=pick(rng, ANIMALS))
    story.sentences.insert(draw(rng, 1, len(story.sentences) - 1), told)
