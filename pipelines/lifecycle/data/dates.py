"""Dates from one way of writing to another. An instance is the day."""

from pipelines.lifecycle.data.dice import Dice, listed
from pipelines.lifecycle.data.example import Example, ask

MONTHS = listed("January February March April May June July August September October November December")
Day = tuple[int, int, int]


def iso(day: Day) -> str:
    """2026-03-09."""
    return f"{day[0]}-{day[1]:02d}-{day[2]:02d}"


def american(day: Day) -> str:
    """March 9, 2026."""
    return f"{MONTHS[day[1] - 1]} {day[2]}, {day[0]}"


def chinese(day: Day) -> str:
    """2026年3月9日."""
    return f"{day[0]}年{day[1]}月{day[2]}日"


def slashed(day: Day) -> str:
    """09/03/2026, day first."""
    return f"{day[2]:02d}/{day[1]:02d}/{day[0]}"


WRITTEN = (iso, american, chinese, slashed)
TARGETS = (
    (iso, "ISO format", "ISO 格式"),
    (american, "English", "英文"),
    (chinese, "Chinese", "中文"),
    (slashed, "DD/MM/YYYY", "日/月/年格式"),
)
ENGLISH = (
    "Write {day} in {form}.", "Convert {day} to {form}.", "{day} in {form}?", "Rewrite the date {day} in {form}.",
    "How do I write {day} in {form}?",
)  # fmt: skip
CHINESE = ("把{day}写成{form}。", "将{day}转换为{form}。", "{day}用{form}怎么写？", "日期{day}，请改成{form}。")


def draw(dice: Dice) -> Example:
    """One date rewritten."""
    day = (dice.whole(1980, 2039), dice.whole(1, 12), dice.whole(1, 28))
    source = dice.pick(WRITTEN)
    target, english_form, chinese_form = dice.pick([t for t in TARGETS if t[0] is not source])
    if dice.chance(50):
        question = dice.pick(CHINESE).format(day=source(day), form=chinese_form)
    else:
        question = dice.pick(ENGLISH).format(day=source(day), form=english_form)
    return ask("dates", iso(day), question, target(day))
