"""Which of the offered tools to call, and with what. An instance is the tool with its arguments.

The answer is the call as JSON between <tool_call> tags, the form that Hermes and Qwen models use and that servers
parse. Where no offered tool fits, the answer says so.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipelines.lifecycle.data import words
from pipelines.lifecycle.data.dice import Dice
from pipelines.lifecycle.data.example import Example, ask

NONE_ENGLISH = "None of the tools fits this request."
NONE_CHINESE = "没有合适的工具。"
TASKS_ENGLISH = "buy milk;call the bank;water the plants;send the report;book a table;clean the desk;feed the cat"
TASKS_CHINESE = "买牛奶;给银行打电话;浇花;发报告;订餐位;打扫桌子;喂猫"


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool, what its arguments are, and how people ask for it."""

    name: str
    purpose: str
    arguments: tuple[str, ...]
    english: tuple[str, ...]
    chinese: tuple[str, ...]

    def definition(self) -> dict[str, Any]:
        """The tool as an OpenAI client would offer it."""
        properties = {a: {"type": "integer" if a in NUMBERS else "string"} for a in self.arguments}
        schema = {"type": "object", "properties": properties, "required": list(self.arguments)}
        function = {"name": self.name, "description": self.purpose, "parameters": schema}
        return {"type": "function", "function": function}


NUMBERS = ("minutes", "amount", "level")
TOOLS = (
    Tool("get_weather", "Weather of a city", ("city",),
         ("What is the weather in {city}?", "Is it raining in {city}?", "Weather for {city}, please.",
          "How warm is it in {city}?"),
         ("{city}天气怎么样？", "{city}下雨了吗？", "查一下{city}的天气。", "{city}现在热吗？")),
    Tool("get_time", "Local time of a city", ("city",),
         ("What time is it in {city}?", "Tell me the time in {city}.", "Current time in {city}?"),
         ("{city}现在几点？", "告诉我{city}的时间。", "{city}当地时间是多少？")),
    Tool("send_email", "Send an email", ("to", "subject"),
         ("Email {to} about {subject}.", "Send {to} an email with the subject {subject}.",
          "Write an email to {to} on {subject}."),
         ("给{to}发邮件，主题是{subject}。", "发一封关于{subject}的邮件给{to}。", "写邮件给{to}，标题{subject}。")),
    Tool("set_timer", "Start a timer", ("minutes",),
         ("Set a timer for {minutes} minutes.", "Start a {minutes} minute timer.", "Wake me in {minutes} minutes."),
         ("设一个{minutes}分钟的定时器。", "{minutes}分钟后提醒我。", "倒计时{minutes}分钟。")),
    Tool("search_flights", "Find flights", ("origin", "destination"),
         ("Find flights from {origin} to {destination}.", "I want to fly from {origin} to {destination}.",
          "Any flights to {destination} from {origin}?"),
         ("查从{origin}到{destination}的航班。", "我想从{origin}飞到{destination}。",
          "{origin}去{destination}有航班吗？")),
    Tool("convert_currency", "Convert money", ("amount", "currency"),
         ("Convert {amount} dollars to {currency}.", "How much is {amount} dollars in {currency}?",
          "Change {amount} dollars into {currency}."),
         ("把{amount}美元换成{currency}。", "{amount}美元是多少{currency}？", "{amount}美元兑换{currency}。")),
    Tool("add_task", "Add to the task list", ("task",),
         ("Remind me to {task}.", "Add to my list: {task}.", "I must not forget to {task}."),
         ("提醒我{task}。", "在清单里加上{task}。", "别让我忘了{task}。")),
    Tool("play_music", "Play songs of an artist", ("artist",),
         ("Play something by {artist}.", "I want to hear {artist}.", "Put on some {artist}."),
         ("播放{artist}的歌。", "我想听{artist}。", "放一首{artist}的歌。")),
    Tool("find_contact", "Look up a person's number", ("person",),
         ("What is {person}'s number?", "Look up {person} in my contacts.", "Find the phone number of {person}."),
         ("{person}的电话是多少？", "在通讯录里找{person}。", "查一下{person}的号码。")),
    Tool("set_brightness", "Screen brightness in percent", ("level",),
         ("Set the brightness to {level} percent.", "Make the screen {level} percent bright.", "Brightness {level}."),
         ("把亮度调到{level}。", "屏幕亮度设为百分之{level}。", "亮度{level}。")),
)  # fmt: skip
CURRENCIES = (("euros", "欧元"), ("yen", "日元"), ("pounds", "英镑"), ("yuan", "人民币"), ("won", "韩元"))
SUBJECTS = (
    ("the meeting", "会议"), ("the budget", "预算"), ("lunch", "午饭"), ("the invoice", "发票"),
    ("the project", "项目"), ("holidays", "假期"), ("the contract", "合同"), ("training", "培训"),
)  # fmt: skip
VALUES: dict[str, Callable[[Dice, bool], str]] = {
    "city": words.city,
    "origin": words.city,
    "destination": words.city,
    "to": words.name,
    "artist": words.name,
    "person": words.name,
    "subject": lambda dice, chinese: dice.pick(SUBJECTS)[chinese],
    "currency": lambda dice, chinese: dice.pick(CURRENCIES)[chinese],
    "task": lambda dice, chinese: dice.pick((TASKS_CHINESE if chinese else TASKS_ENGLISH).split(";")),
    "minutes": lambda dice, _: str(dice.whole(1, 180)),
    "amount": lambda dice, _: str(dice.whole(1, 5000)),
    "level": lambda dice, _: str(dice.whole(1, 100)),
}


def draw(dice: Dice) -> Example:
    """One request, with two to four tools on offer."""
    chinese = dice.chance(50)
    wanted = dice.pick(TOOLS)
    values = {argument: VALUES[argument](dice, chinese) for argument in wanted.arguments}
    question = dice.pick(wanted.chinese if chinese else wanted.english).format(**values)
    offered = dice.sample([tool for tool in TOOLS if tool is not wanted], dice.whole(1, 3))
    key = "|".join((wanted.name, *values.values()))
    if dice.chance(30):
        return ask("tools", key, question, NONE_CHINESE if chinese else NONE_ENGLISH, definitions(offered))
    offered.insert(dice.whole(0, len(offered)), wanted)
    return ask("tools", key, question, call(wanted.name, values), definitions(offered))


def call(name: str, values: dict[str, str]) -> str:
    """The call as the model writes it."""
    arguments = {a: int(v) if a in NUMBERS else v for a, v in values.items()}
    body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>{body}</tool_call>"


def definitions(tools: list[Tool]) -> tuple[dict[str, Any], ...]:
    """What a client sends."""
    return tuple(tool.definition() for tool in tools)
