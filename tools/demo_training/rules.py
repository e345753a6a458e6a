"""The rules that make the demo benchmark's questions: one function a subject, a random source in, a draft out."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from llmjobs.demo import words


@dataclass(frozen=True)
class Draft:
    """A question before its options are put in order.

    `wrong` is empty for short generation. `by_options`: the options are part of what is asked ("which of these").
    """

    question: str
    answer: str
    wrong: tuple[str, ...] = ()
    by_options: bool = False


Rule = Callable[[Random], Draft]


def _numbers(*values: int) -> tuple[str, ...]:
    return tuple(str(value) for value in values)


def number_size(rng: Random) -> Draft:
    """The largest or the smallest of four numbers below 100."""
    values = sorted(rng.sample(range(100), 4))
    if rng.random() < 0.5:
        return Draft("Which of these numbers is the largest?", str(values[3]), _numbers(*values[:3]), True)
    return Draft("Which of these numbers is the smallest?", str(values[0]), _numbers(*values[1:]), True)


def number_sequence(rng: Random) -> Draft:
    """The next number of a sequence with a constant step from 1 to 9, up or down."""
    step = rng.randint(1, 9)
    start = rng.randint(0, 99 - 4 * step)
    values = [start + i * step for i in range(5)]
    if rng.random() < 0.5:
        values.reverse()
    answer = values[4]
    near = [v for v in (*range(answer - 9, answer + 10),) if 0 <= v <= 99 and v != answer]
    shown = ", ".join(_numbers(*values[:4]))
    return Draft(f"Which number comes next: {shown}?", str(answer), _numbers(*rng.sample(near, 3)))


def calendar_order(rng: Random) -> Draft:
    """The first or last of four months, or the month some months before or after another."""
    months = words.MONTHS
    if rng.random() < 0.6:
        chosen = [months[i] for i in sorted(rng.sample(range(12), 4))]
        if rng.random() < 0.5:
            return Draft("Which of these months comes first in the year?", chosen[0], tuple(chosen[1:]), True)
        return Draft("Which of these months comes last in the year?", chosen[3], tuple(chosen[:3]), True)
    start, offset = rng.randrange(12), rng.randint(1, len(words.OFFSETS))
    where, sign = rng.choice((("after", 1), ("before", -1)))
    answer = months[(start + sign * offset) % 12]
    wrong = rng.sample([m for m in months if m not in (answer, months[start])], 3)
    return Draft(f"Which month comes {words.OFFSETS[offset - 1]} {where} {months[start]}?", answer, tuple(wrong))


def alphabet_order(rng: Random) -> Draft:
    """The first or last of four words in the alphabet; their first letters differ."""
    by_letter = {word[0]: word for word in rng.sample(words.common_words(), 30)}
    chosen = sorted(rng.sample(sorted(by_letter.values()), 4))
    if rng.random() < 0.5:
        return Draft("Which of these words comes first in the alphabet?", chosen[0], tuple(chosen[1:]), True)
    return Draft("Which of these words comes last in the alphabet?", chosen[3], tuple(chosen[:3]), True)


def odd_one_out(rng: Random) -> Draft:
    """Three words of one category, one of another."""
    many, one = rng.sample(list(words.CATEGORIES.values()), 2)
    return Draft(
        "Which of these words does not belong with the others?", rng.choice(one), tuple(rng.sample(many, 3)), True
    )


def home_of(creature: str) -> str:
    """The land in which a creature of the made-up world lives: a fixed table, six creatures a land."""
    return words.LANDS[words.CREATURES.index(creature) * 7 % 24 // 6]


def food_of(creature: str) -> str:
    """What a creature of the made-up world eats: a fixed table, independent of its home."""
    return words.FOODS[words.CREATURES.index(creature) * 7 % 24 % 4]


def far_country(rng: Random) -> Draft:
    """Homes and food of the creatures of a made-up world, asked directly or by way of another creature."""
    table, verb = rng.choice(((home_of, "lives in"), (food_of, "eats")))
    kind = table(rng.choice(words.CREATURES))
    same = [c for c in words.CREATURES if table(c) == kind]
    other = [c for c in words.CREATURES if table(c) != kind]
    answer, guide = rng.sample(same, 2)
    wrong = tuple(rng.sample(other, 3))
    if rng.random() < 0.5:
        return Draft(f"Which of these creatures {verb} {kind}?", answer, wrong, True)
    asked = "lives in the same land as" if table is home_of else "eats the same food as"
    return Draft(f"Which of these creatures {asked} the {guide}?", answer, wrong, True)


def who_has_most(rng: Random) -> Draft:
    """Four people and how many things each has; who has most."""
    names = rng.sample(words.NAMES, 4)
    counts = rng.sample(range(2, 100), 4)
    thing = rng.choice(words.COUNTED)
    said = [f"{name} has {count}" for name, count in zip(names, counts, strict=True)]
    best = names[counts.index(max(counts))]
    text = f"{said[0]} {thing}, {said[1]}, {said[2]} and {said[3]}. Who has the most?"
    return Draft(text, best, tuple(name for name in names if name != best))


def two_digit_sums(rng: Random) -> Draft:
    """The sum of two two-digit numbers, with wrong options close to it."""
    first, second = rng.randint(10, 88), rng.randint(10, 88)
    if first + second > 99:
        first, second = 99 - first, 99 - second
    answer = first + second
    near = [answer + d for d in (-11, -10, -9, -2, -1, 1, 2, 9, 10, 11) if 0 <= answer + d <= 99]
    return Draft(f"What is {first} + {second}?", str(answer), _numbers(*rng.sample(near, 3)))


def repeat_words(rng: Random) -> Draft:
    """A list of three to six words, to be written again."""
    shown = " ".join(rng.sample(words.common_words(), rng.randint(3, 6)))
    return Draft(f"Repeat these words: {shown}.", shown)


def sort_numbers(rng: Random) -> Draft:
    """Three or four numbers below 100, to be written from small to large."""
    values = rng.sample(range(100), rng.randint(3, 4))
    shown = " ".join(_numbers(*values))
    return Draft(f"Sort these numbers from small to large: {shown}.", " ".join(_numbers(*sorted(values))))


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        number_size,
        number_sequence,
        calendar_order,
        alphabet_order,
        odd_one_out,
        far_country,
        who_has_most,
        two_digit_sums,
        repeat_words,
        sort_numbers,
    )
}
