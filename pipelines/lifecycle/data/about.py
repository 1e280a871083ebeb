"""Questions about Strata itself.

An instance is the fact in one wording, without the polite words around it; for a fact with whole questions of its
own, which no model could guess from others, it is the question with those words.
"""

from pipelines.lifecycle.data.dice import Dice
from pipelines.lifecycle.data.example import Example, ask
from pipelines.lifecycle.data.facts import DOES, FACTS, MEANS, WHOLE, Fact
from pipelines.lifecycle.data.words import politely

DOES_ENGLISH = (
    "What does {x} do?", "What is {x} for?", "Explain {x}.", "When do I use {x}?", "Why would I run {x}?",
    "What happens when I run {x}?", "Describe {x}.", "Tell me about {x}.", "What is the purpose of {x}?",
    "How does {x} help?", "I saw {x}. What is it?", "{x}?",
)  # fmt: skip
DOES_CHINESE = (
    "{x} 是做什么的？", "{x} 有什么用？", "解释一下 {x}。", "什么时候用 {x}？", "运行 {x} 会怎样？", "为什么要用 {x}？",
    "介绍一下 {x}。", "说说 {x}。", "{x} 的作用是什么？", "{x} 能干什么？", "我看到了 {x}，那是什么？", "{x}？",
)  # fmt: skip
MEANS_ENGLISH = (
    "What is {x}?", "What does {x} mean?", "Explain {x}.", "Define {x}.", "Tell me about {x}.", "Describe {x}.",
    "What do you mean by {x}?", "In Strata, what is {x}?", "I do not understand {x}.", "{x}?",
    "What is the meaning of {x}?", "Can you explain {x}?",
)  # fmt: skip
MEANS_CHINESE = (
    "{x}是什么？", "{x}是什么意思？", "解释一下{x}。", "什么是{x}？", "介绍一下{x}。", "说说{x}。", "{x}指什么？",
    "在 Strata 里，{x}是什么？", "我不懂{x}。", "{x}？", "{x}的含义是什么？", "能解释{x}吗？",
)  # fmt: skip


def draw(dice: Dice) -> Example:
    """One question on one fact."""
    chinese = dice.chance(50)
    fact = dice.pick(FACTS)
    question, answer = word(dice, fact, chinese)
    asked = politely(dice, question, chinese)
    return ask("about", asked.lower() if fact.kind == WHOLE else question, asked, answer)


def word(dice: Dice, fact: Fact, chinese: bool) -> tuple[str, str]:
    """A wording of a fact's question, and the answer."""
    asks = {
        DOES: DOES_CHINESE if chinese else DOES_ENGLISH,
        MEANS: MEANS_CHINESE if chinese else MEANS_ENGLISH,
    }.get(fact.kind)
    name = dice.pick(fact.chinese if chinese else fact.english)
    question = dice.pick(asks).format(x=name) if asks else name
    return question, fact.answers[chinese]
