"""Sums and differences up to 99, worked sums of three digits, and the multiplication table.

An instance is the pair of numbers, whatever the language or the phrasing. The multiplication table has only 100
entries, so its instances are whole questions: held-out ones ask for a known product in a way never seen.
"""

from pipelines.lifecycle.data.dice import Dice
from pipelines.lifecycle.data.example import Example, ask, ask_text
from pipelines.lifecycle.data.words import CHINESE_ITEMS, ENGLISH_ITEMS, politely

PLUS = (
    "What is {a} + {b}?", "{a} + {b} = ?", "Compute {a} + {b}.", "{a}+{b}", "Add {a} and {b}.", "{a} plus {b}?",
    "How much is {a} plus {b}?", "What is the sum of {a} and {b}?", "{a} + {b}", "{a} + {b} 等于多少？",
    "{a}加{b}等于几？", "计算 {a} + {b}。", "求{a}与{b}的和。", "{a}+{b}=?", "{a} 加 {b} 是多少？", "算一下{a}+{b}",
)  # fmt: skip
MINUS = (
    "What is {a} - {b}?", "{a} - {b} = ?", "Compute {a} - {b}.", "{a}-{b}", "Subtract {b} from {a}.", "{a} minus {b}?",
    "How much is {a} minus {b}?", "{a} - {b}", "{a} - {b} 等于多少？", "{a}减{b}等于几？", "计算 {a} - {b}。",
    "求{a}与{b}的差。", "{a}-{b}=?", "{a} 减 {b} 是多少？", "算一下{a}-{b}",
)  # fmt: skip
TIMES = (
    "What is {a} x {b}?", "{a} x {b} = ?", "Compute {a} * {b}.", "{a}*{b}", "Multiply {a} by {b}.", "{a} times {b}?",
    "How much is {a} times {b}?", "{a} × {b}", "{a} × {b} 等于多少？", "{a}乘{b}等于几？", "计算 {a} × {b}。",
    "求{a}与{b}的积。", "{a}*{b}=?", "{a} 乘以 {b} 是多少？", "算一下{a}×{b}",
)  # fmt: skip
ENGLISH_STORY = "{a} boxes hold {b} {item}s each. How many {item}s are there?"
CHINESE_STORY = "{a}个箱子，每个装{b}件{item}，一共多少件？"


def draw(dice: Dice) -> Example:
    """One question with its answer."""
    kind = dice.whole(0, 9)
    if kind < 4:
        return add(dice, dice.whole(0, 99), dice.whole(0, 99))
    if kind < 7:
        return subtract(dice)
    if kind < 8:
        return add_long(dice)
    return multiply(dice)


def add(dice: Dice, a: int, b: int) -> Example:
    """A sum whose instance does not mind the order."""
    question = dice.pick(PLUS).format(a=a, b=b)
    return ask("arithmetic", plus_key(a, b), question, plus(a, b))


def plus(a: int, b: int) -> str:
    """How a sum is stated."""
    return f"{a} + {b} = {a + b}"


def plus_key(a: int, b: int) -> str:
    """The instance of a sum."""
    return f"{min(a, b)}+{max(a, b)}"


def subtract(dice: Dice) -> Example:
    """A difference, seldom a negative one."""
    a, b = dice.whole(0, 99), dice.whole(0, 99)
    if a < b and not dice.chance(20):
        a, b = b, a
    question = dice.pick(MINUS).format(a=a, b=b)
    return ask("arithmetic", f"{a}-{b}", question, f"{a} - {b} = {a - b}")


def add_long(dice: Dice) -> Example:
    """A sum of three digits, worked from the right, since a small model cannot carry in its head."""
    a, b = dice.whole(100, 999), dice.whole(100, 999)
    question = dice.pick(PLUS).format(a=a, b=b)
    return ask("arithmetic", plus_key(a, b), question, worked(a, b))


def worked(a: int, b: int) -> str:
    """The column sums from the right, with what is carried, then the result."""
    steps, carry = [], 0
    for left, right in zip(reversed(str(a)), reversed(str(b)), strict=True):
        terms = [left, right] + ["1"] * carry
        total = int(left) + int(right) + carry
        steps.append("+".join(terms) + f"={total}")
        carry = total // 10
    return f"{', '.join(steps)}: {a} + {b} = {a + b}"


def multiply(dice: Dice) -> Example:
    """A product of two digits, bare or as a story."""
    a, b = dice.whole(0, 9), dice.whole(0, 9)
    answer = f"{a} × {b} = {a * b}"
    if dice.chance(40):
        a, b = max(a, 2), max(b, 2)
        answer = f"{a} × {b} = {a * b}"
        if dice.chance(50):
            return ask_text("arithmetic", CHINESE_STORY.format(a=a, b=b, item=dice.pick(CHINESE_ITEMS)), answer)
        return ask_text("arithmetic", ENGLISH_STORY.format(a=a, b=b, item=dice.pick(ENGLISH_ITEMS)), answer)
    question = dice.pick(TIMES).format(a=a, b=b)
    return ask("arithmetic", f"{a}x{b}:" + question, politely(dice, question, not question.isascii()), answer)
