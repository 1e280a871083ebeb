"""Conversations of two or three turns whose last one needs what came before. An instance is what they are about."""

from pipelines.lifecycle.data import about, tools, words
from pipelines.lifecycle.data.arithmetic import plus, plus_key
from pipelines.lifecycle.data.dice import Dice
from pipelines.lifecycle.data.example import Example, Turn
from pipelines.lifecycle.data.facts import DOES, FACTS, MEANS

COMMANDS = tuple(fact for fact in FACTS if fact.kind in (DOES, MEANS))


def draw(dice: Dice) -> Example:
    """One conversation."""
    kind = dice.pick((running_sum, running_sum, remembered_name, remembered_thing, next_fact, tool_result))
    return kind(dice, dice.chance(50))


def running_sum(dice: Dice, chinese: bool) -> Example:
    """A sum, and something added to its result."""
    a, b, c = dice.whole(1, 49), dice.whole(1, 49), dice.whole(1, 99)
    first = dice.pick(("{a}加{b}等于几？", "算一下{a}+{b}") if chinese else ("What is {a} + {b}?", "{a} + {b}"))
    more = dice.pick(
        ("再加{c}呢？", "结果再加{c}。", "加上{c}呢？")
        if chinese
        else ("Add {c} to that.", "Plus {c}?", "And {c} more?")
    )
    turns = (
        ("user", first.format(a=a, b=b)),
        ("assistant", plus(a, b)),
        ("user", more.format(c=c)),
        ("assistant", plus(a + b, c)),
    )
    shown = tuple(f"arithmetic:{key}" for key in (plus_key(a, b), plus_key(a + b, c)))
    return Example("dialogue", f"dialogue:{a}+{b}+{c}", turns, shown)


def remembered_name(dice: Dice, chinese: bool) -> Example:
    """The user's name, told and asked for, sometimes with a turn between."""
    person = words.name(dice, chinese)
    if chinese:
        tell = dice.pick((f"我叫{person}。", f"我的名字是{person}。", f"你好，我是{person}。"))
        greet, question = f"你好，{person}！", dice.pick(("我叫什么？", "我的名字是什么？", "你记得我叫什么吗？"))
        answer, thanks = f"你叫{person}。", (("user", "谢谢"), ("assistant", "不客气！"))
    else:
        tell = dice.pick((f"My name is {person}.", f"I am {person}.", f"Hi, I'm {person}."))
        greet, question = f"Hello, {person}!", dice.pick(("What is my name?", "Who am I?", "Do you know my name?"))
        answer, thanks = f"Your name is {person}.", (("user", "Thanks"), ("assistant", "You are welcome!"))
    between: tuple[Turn, ...] = thanks if dice.chance(40) else ()
    turns = (("user", tell), ("assistant", greet), *between, ("user", question), ("assistant", answer))
    return Example("dialogue", f"dialogue:{person}", turns)


def remembered_thing(dice: Dice, chinese: bool) -> Example:
    """What was bought, where and for how much; then one of these is asked for."""
    thing, place, cost = words.item(dice, chinese), words.city(dice, chinese), dice.whole(1, 999)
    if chinese:
        tell, noted = f"我在{place}花{cost}元买了{thing}。", "好的，记住了。"
        question, answer = dice.pick(
            (("我在哪里买的？", f"在{place}。"), ("我花了多少钱？", f"{cost} 元。"), ("我买了什么？", f"{thing}。"))
        )
    else:
        tell, noted = f"I bought a {thing} in {place} for {cost} dollars.", "Noted."
        question, answer = dice.pick(
            (("Where did I buy it?", f"In {place}."), ("How much was it?", f"{cost} dollars."),
             ("What did I buy?", f"A {thing}."))
        )  # fmt: skip
    turns = (("user", tell), ("assistant", noted), ("user", question), ("assistant", answer))
    return Example("dialogue", f"dialogue:{thing}|{place}|{cost}", turns)


def next_fact(dice: Dice, chinese: bool) -> Example:
    """A question on Strata, and then "and this one?"."""
    first, second = dice.sample(COMMANDS, 2)
    question, answer = about.word(dice, first, chinese)
    name = dice.pick(second.chinese if chinese else second.english)
    follow = dice.pick(("那{x}呢？", "{x}呢？") if chinese else ("And {x}?", "What about {x}?")).format(x=name)
    turns = (
        ("user", question),
        ("assistant", answer),
        ("user", follow),
        ("assistant", second.answers[chinese]),
    )
    return Example("dialogue", f"dialogue:{question}|{follow}", turns, (f"about:{question}",))


REPORTS = {
    "get_weather": (
        ("rain", "雨"),
        ("sunny", "晴"),
        ("snow", "雪"),
        ("cloudy", "多云"),
        ("windy", "有风"),
        ("fog", "雾"),
    ),
    "get_time": (("in the morning", "上午"), ("in the evening", "晚上"), ("at night", "夜里")),
}


def tool_result(dice: Dice, chinese: bool) -> Example:
    """A tool call, what the tool gave, and the answer that passes it on."""
    tool = dice.pick([tool for tool in tools.TOOLS if tool.name in REPORTS])
    place = words.city(dice, chinese)
    report = dice.pick(REPORTS[tool.name])[chinese]
    if tool.name == "get_weather":
        given = f"{report}, {dice.whole(-9, 39)} °C"
    else:
        given = f"{dice.whole(1, 12)}:{dice.whole(0, 59):02d} {report}"
    others = dice.sample([other for other in tools.TOOLS if other is not tool], dice.whole(0, 2))
    turns = (
        ("user", dice.pick(tool.chinese if chinese else tool.english).format(city=place)),
        ("assistant", tools.call(tool.name, {"city": place})),
        ("tool", given),
        ("assistant", f"{place}: {given}"),
    )
    offered = tools.definitions([tool, *others])
    return Example("dialogue", f"dialogue:{place}|{given}", turns, (f"tools:{tool.name}|{place}",), offered)
