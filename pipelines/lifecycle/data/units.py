"""Unit conversion by exact factors.

Where the factor is a power of ten, the instance is the value with its units. Hours, days and dozens are small
tables: there an instance is a whole question.
"""

from pipelines.lifecycle.data.dice import Dice
from pipelines.lifecycle.data.example import Example, ask, ask_text
from pipelines.lifecycle.data.words import politely

# large unit, small unit (English, Chinese), factor
TENS = (
    (("km", "公里"), ("m", "米"), 1000),
    (("m", "米"), ("cm", "厘米"), 100),
    (("cm", "厘米"), ("mm", "毫米"), 10),
    (("kg", "公斤"), ("g", "克"), 1000),
    (("t", "吨"), ("kg", "公斤"), 1000),
    (("l", "升"), ("ml", "毫升"), 1000),
)
TABLES = (
    (("hours", "小时"), ("minutes", "分钟"), 60, 12),
    (("minutes", "分钟"), ("seconds", "秒"), 60, 12),
    (("days", "天"), ("hours", "小时"), 24, 10),
    (("weeks", "周"), ("days", "天"), 7, 12),
    (("years", "年"), ("months", "个月"), 12, 10),
    (("dozen", "打"), ("pieces", "个"), 12, 10),
)
ENGLISH = (
    "Convert {a} {x} to {y}.", "How many {y} are {a} {x}?", "{a} {x} in {y}?", "{a} {x} = ? {y}",
    "What is {a} {x} in {y}?", "Express {a} {x} in {y}.",
)  # fmt: skip
CHINESE = (
    "{a}{x}等于多少{y}？", "把{a}{x}换算成{y}。", "{a}{x}是多少{y}？", "{a}{x}=?{y}", "{a} {x}换成{y}是多少？",
    "{a}{x}有多少{y}？",
)  # fmt: skip


def draw(dice: Dice) -> Example:
    """One conversion."""
    chinese = dice.chance(50)
    if dice.chance(30):
        large, small, factor, most = dice.pick(TABLES)
        value = dice.whole(1, most)
        question = phrase(dice, chinese, value, large, small)
        return ask_text("units", politely(dice, question, chinese), state(chinese, value, large, value * factor, small))
    large, small, factor = dice.pick(TENS)
    value = dice.whole(1, 99) if dice.chance(60) else dice.whole(100, 999)
    key = f"{value}{large[0]}-{small[0]}"
    if dice.chance(50):
        question = phrase(dice, chinese, value, large, small)
        return ask("units", key, question, state(chinese, value, large, value * factor, small))
    question = phrase(dice, chinese, value * factor, small, large)
    return ask("units", key, question, state(chinese, value * factor, small, value, large))


def phrase(dice: Dice, chinese: bool, value: int, source: tuple[str, str], target: tuple[str, str]) -> str:
    """The question in one language."""
    return dice.pick(CHINESE if chinese else ENGLISH).format(a=value, x=source[chinese], y=target[chinese])


def state(chinese: bool, value: int, source: tuple[str, str], result: int, target: tuple[str, str]) -> str:
    """The answer in the units' names of one language."""
    return f"{value} {source[chinese]} = {result} {target[chinese]}"
