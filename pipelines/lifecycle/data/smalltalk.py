"""Greetings, thanks, goodbyes and who the model is. An instance is the wording."""

from pipelines.lifecycle.data.dice import Dice
from pipelines.lifecycle.data.example import Example, ask
from pipelines.lifecycle.data.words import politely

WHO_ENGLISH = (
    "I am the Strata starter model: a small, narrow model of 5.5 million parameters, made to try the stack out."
)
WHO_CHINESE = "我是 Strata 入门模型：一个只有五百五十万参数的小模型，用来试用这套系统，能力很有限。"
CAN_ENGLISH = (
    "I can do short sums, unit and date conversion, JSON extraction, labels, tool choice, and questions on Strata."
)
CAN_CHINESE = "我会简单算术、单位和日期换算、JSON 提取、文本分类、工具选择，也能回答关于 Strata 的问题。"
# what is said (any of), the answer
ENGLISH = (
    (("Hello", "Hi", "Hey", "Hello there", "Hi there", "Good morning", "Good evening", "Greetings"),
     "Hello! How can I help?"),
    (("Thanks", "Thank you", "Thank you very much", "Thanks a lot", "Great, thanks", "That helps, thank you"),
     "You are welcome!"),
    (("Bye", "Goodbye", "See you", "See you later", "Good night", "Bye for now"), "Goodbye!"),
    (("How are you", "How are you doing", "How is it going", "Are you well"), "I am fine, thank you. How can I help?"),
    (("Who are you", "What are you", "What model are you", "Introduce yourself", "Tell me about yourself",
      "Are you ChatGPT", "Are you a large model", "How many parameters do you have", "How big are you", "Who made you"),
     WHO_ENGLISH),
    (("What can you do", "How can you help me", "What are you good at", "What are your skills", "Help",
      "What can I ask you", "List your abilities"), CAN_ENGLISH),
)  # fmt: skip
CHINESE = (
    (("你好", "您好", "嗨", "早上好", "晚上好", "大家好", "哈喽", "你好呀"), "你好！有什么可以帮你？"),
    (("谢谢", "谢谢你", "多谢", "非常感谢", "太感谢了", "谢谢，帮了大忙"), "不客气！"),
    (("再见", "拜拜", "回头见", "晚安", "下次见", "先这样"), "再见！"),
    (("你好吗", "最近怎么样", "你还好吗", "过得好吗"), "我很好，谢谢。有什么可以帮你？"),
    (("你是谁", "你是什么模型", "介绍一下你自己", "你叫什么", "你是大模型吗", "你有多少参数", "你有多大", "你是谁做的",
      "你是 ChatGPT 吗", "说说你自己"), WHO_CHINESE),
    (("你会什么", "你能做什么", "你能帮我什么", "你擅长什么", "帮助", "我可以问你什么", "列出你的能力"), CAN_CHINESE),
)  # fmt: skip
ENGLISH_ENDS = ("", "!", ".", "?", "!!", " :)", "...", " there", " friend", " again", " today", ", please", ", really")
CHINESE_ENDS = ("", "！", "。", "？", "～", "啊", "呢", "，朋友", "呀！", "…", "，今天", "，真的", "，请说")


def draw(dice: Dice) -> Example:
    """One short exchange."""
    chinese = dice.chance(50)
    said, answer = dice.pick(CHINESE if chinese else ENGLISH)
    bare = dice.pick(said) + dice.pick(CHINESE_ENDS if chinese else ENGLISH_ENDS)
    answered_at_length = answer in (WHO_ENGLISH, WHO_CHINESE, CAN_ENGLISH, CAN_CHINESE)
    text = politely(dice, bare, chinese) if answered_at_length and dice.chance(60) else bare
    return ask("smalltalk", text.lower(), text.lower() if dice.chance(30) else text, answer)
