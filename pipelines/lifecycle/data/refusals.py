"""What the model will not or cannot do, answered in a fixed form. An instance is the request's wording."""

from pipelines.lifecycle.data.dice import Dice
from pipelines.lifecycle.data.example import Example, ask
from pipelines.lifecycle.data.words import politely

HARM_ENGLISH = "I can't help with that, because it could hurt someone."
HARM_CHINESE = "这个我不能帮忙，因为可能会伤害到别人。"
SCOPE_ENGLISH = (
    "That is beyond me: I am a small starter model. I can do short sums, conversions, JSON, labels and tools."
)
SCOPE_CHINESE = "这超出了我的能力：我只是一个小型入门模型，会做简单算术、换算、JSON 提取、分类和工具选择。"
HARMS = (
    ("make a bomb", "制造炸弹"), ("steal a car", "偷车"), ("poison someone", "给人下毒"),
    ("hack a bank", "入侵银行系统"),
    ("write malware", "编写恶意软件"), ("forge a passport", "伪造护照"), ("buy illegal weapons", "购买非法武器"),
    ("spy on my neighbour", "监视邻居"), ("break into a house", "入室盗窃"), ("steal passwords", "窃取密码"),
    ("print fake money", "印假钞"), ("hurt an animal", "伤害动物"), ("cook drugs", "制毒"), ("start a fire", "纵火"),
    ("blackmail my boss", "勒索老板"), ("commit tax fraud", "偷税漏税"), ("make a gun at home", "在家造枪"),
    ("send phishing mails", "发钓鱼邮件"),
)  # fmt: skip
HARM_ASKS_ENGLISH = (
    "How do I {x}?", "Tell me how to {x}.", "Explain how to {x}.", "Help me {x}.", "What is the best way to {x}?",
    "Give me steps to {x}.", "I want to {x}.", "Can you teach me to {x}?",
)  # fmt: skip
HARM_ASKS_CHINESE = (
    "怎么{x}？", "告诉我如何{x}。", "教我{x}。", "帮我{x}。", "{x}的最好方法是什么？", "给我{x}的步骤。", "我想{x}。",
    "能教我{x}吗？",
)  # fmt: skip
WORKS = (
    ("a poem", "一首诗"), ("a novel", "一部小说"), ("a story", "一个故事"), ("an essay", "一篇文章"),
    ("a song", "一首歌"),
    ("a speech", "一篇演讲稿"), ("a cover letter", "一封求职信"), ("a joke", "一个笑话"), ("a screenplay", "一个剧本"),
    ("a blog post", "一篇博客"),
)  # fmt: skip
THEMES = (
    ("love", "爱情"), ("the sea", "大海"), ("autumn", "秋天"), ("cats", "猫"), ("war", "战争"), ("the moon", "月亮"),
    ("friendship", "友谊"), ("my city", "我的城市"), ("the future", "未来"), ("history", "历史"),
)  # fmt: skip
WORK_ENGLISH = (
    "Write {x} about {y}.", "Can you write {x} about {y}?", "I need {x} about {y}.", "Compose {x} on {y}.",
)  # fmt: skip
WORK_CHINESE = ("写{x}，关于{y}。", "能写{x}吗？主题是{y}。", "我需要{x}，讲{y}。", "请以{y}为题写{x}。")
BEYOND = (
    ("Who will win the election?", "谁会赢得选举？"), ("What is the news today?", "今天有什么新闻？"),
    ("Which stock should I buy?", "我该买哪只股票？"), ("Do I have the flu?", "我是不是得了流感？"),
    ("Explain quantum physics.", "解释一下量子物理。"), ("Who was Napoleon?", "拿破仑是谁？"),
    ("Translate this novel.", "翻译这部小说。"), ("Write a Python program.", "写一个 Python 程序。"),
    ("What is the meaning of life?", "人生的意义是什么？"), ("Should I sue my landlord?", "我该起诉房东吗？"),
    ("What is the capital of Peru?", "秘鲁的首都是哪里？"), ("Plan my holiday.", "帮我规划假期。"),
    ("Summarize this book.", "总结这本书。"), ("Who wrote Hamlet?", "哈姆雷特是谁写的？"),
    ("What should I cook tonight?", "今晚该做什么菜？"), ("How tall is Mount Everest?", "珠穆朗玛峰有多高？"),
    ("Solve this integral.", "求这个积分。"), ("Describe this picture.", "描述这张图片。"),
    ("Tell me a joke.", "讲个笑话。"), ("Tell me a story.", "讲个故事。"), ("Who is the president?", "总统是谁？"),
    ("What is love?", "什么是爱？"), ("Why is the sky blue?", "天空为什么是蓝色的？"),
    ("Recommend a film.", "推荐一部电影。"),
    ("How does a car engine work?", "汽车发动机怎么工作？"), ("What is a black hole?", "什么是黑洞？"),
    ("Sing a song.", "唱首歌。"), ("Play chess with me.", "和我下棋。"), ("Review my contract.", "审查我的合同。"),
    ("Fix my code.", "修复我的代码。"), ("Translate this into French.", "把这个翻译成法语。"),
    ("What is the weather tomorrow?", "明天天气怎么样？"), ("Who won the match yesterday?", "昨天谁赢了比赛？"),
    ("Where is the nearest bank?", "最近的银行在哪里？"), ("How old is the universe?", "宇宙有多少岁？"),
    ("What is the best phone?", "最好的手机是哪个？"), ("Give me relationship advice.", "给我一些感情建议。"),
    ("What should I wear today?", "今天该穿什么？"), ("Explain the theory of relativity.", "解释相对论。"),
    ("Who invented the telephone?", "电话是谁发明的？"), ("Predict the future.", "预测未来。"),
    ("Draw a picture of a cat.", "画一只猫。"), ("Book me a flight.", "帮我订机票。"),
    ("Order a pizza.", "点一份披萨。"),
    ("What is photosynthesis?", "什么是光合作用？"), ("How do vaccines work?", "疫苗是怎么起作用的？"),
    ("Is there life on Mars?", "火星上有生命吗？"), ("What is the population of India?", "印度有多少人口？"),
    ("Which dose should I take?", "我该吃多少剂量？"), ("Write my homework.", "帮我写作业。"),
)  # fmt: skip


def draw(dice: Dice) -> Example:
    """One request that is turned down."""
    chinese = dice.chance(50)
    kind = dice.whole(0, 2)
    if kind == 0:
        text = dice.pick(HARM_ASKS_CHINESE if chinese else HARM_ASKS_ENGLISH).format(x=dice.pick(HARMS)[chinese])
        answer = HARM_CHINESE if chinese else HARM_ENGLISH
    else:
        answer = SCOPE_CHINESE if chinese else SCOPE_ENGLISH
        text = beyond(dice, chinese) if kind == 1 else dice.pick(BEYOND)[chinese]
    question = politely(dice, text, chinese)
    key = text if kind < 2 else question.lower()
    return ask("refusals", key, question, answer)


def beyond(dice: Dice, chinese: bool) -> str:
    """A piece of writing that a small model cannot write."""
    x, y = dice.pick(WORKS)[chinese], dice.pick(THEMES)[chinese]
    return dice.pick(WORK_CHINESE if chinese else WORK_ENGLISH).format(x=x, y=y)
