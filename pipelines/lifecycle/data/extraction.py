"""Fields of a sentence as JSON, in the order in which they are asked for. An instance is the set of values."""

import json

from pipelines.lifecycle.data import words
from pipelines.lifecycle.data.dice import Dice
from pipelines.lifecycle.data.example import Example, ask

# the sentence, then the fields that it holds
ENGLISH = (
    ("{name} from {city} bought a {item} for {amount} dollars.", "name city item amount"),
    ("{name} paid {amount} dollars for a {item} in {city}.", "name city item amount"),
    ("A {item} was sent to {name} in {city}.", "name city item"),
    ("In {city}, {name} ordered a {item} for {amount} dollars.", "name city item amount"),
    ("{name} lives in {city} and is {age} years old.", "name city age"),
    ("My name is {name}, I am {age} and I live in {city}.", "name city age"),
    ("{name}, phone {phone}, wants a {item}.", "name phone item"),
    ("Call {name} at {phone} in {city}.", "name phone city"),
)
CHINESE = (
    ("{city}的{name}花{amount}元买了一个{item}。", "name city item amount"),
    ("{name}在{city}用{amount}元买了{item}。", "name city item amount"),
    ("{item}已寄给{city}的{name}。", "name city item"),
    ("{name}今年{age}岁，住在{city}。", "name city age"),
    ("我叫{name}，{age}岁，来自{city}。", "name city age"),
    ("{name}的电话是{phone}，想要一个{item}。", "name phone item"),
    ("请联系{city}的{name}，电话{phone}。", "name phone city"),
)
ASK_ENGLISH = (
    "Extract {fields} as JSON: {text}", "Give {fields} as JSON. {text}", "{text} Return JSON with {fields}.",
    "Text: {text} Extract the fields {fields} to JSON.",
)  # fmt: skip
ASK_CHINESE = (
    "提取{fields}，输出 JSON：{text}", "从下面的句子中提取{fields}，用 JSON 表示：{text}",
    "{text}请以 JSON 返回{fields}。", "文本：{text}把{fields}提取为 JSON。",
)  # fmt: skip
NUMBERS = ("amount", "age")


def draw(dice: Dice) -> Example:
    """One sentence, some of its fields."""
    chinese = dice.chance(50)
    text, fields = dice.pick(CHINESE if chinese else ENGLISH)
    values = invent(dice, chinese)
    asked = dice.sample(fields.split(), dice.whole(2, len(fields.split())))
    listed = "、".join(asked) if chinese else ", ".join(asked)
    question = dice.pick(ASK_CHINESE if chinese else ASK_ENGLISH).format(fields=listed, text=text.format(**values))
    answer = json.dumps({f: int(values[f]) if f in NUMBERS else values[f] for f in asked}, ensure_ascii=False)
    return ask("extraction", "|".join(values[f] for f in sorted(fields.split())), question, answer)


def invent(dice: Dice, chinese: bool) -> dict[str, str]:
    """A value for every field."""
    return {
        "name": words.name(dice, chinese),
        "city": words.city(dice, chinese),
        "item": words.item(dice, chinese),
        "amount": str(dice.whole(1, 9999) if dice.chance(50) else dice.whole(1, 99) * 10),
        "age": str(dice.whole(18, 89)),
        "phone": str(dice.whole(1300000000, 1999999999)) + str(dice.whole(0, 9)),
    }
