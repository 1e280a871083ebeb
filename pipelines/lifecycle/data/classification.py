"""Sentiment, topic and intent of a sentence put together from word lists. An instance is the sentence."""

from pipelines.lifecycle.data.dice import Dice, listed
from pipelines.lifecycle.data.example import Example, ask, wording

THINGS = (
    ("food", "饭菜"), ("service", "服务"), ("room", "房间"), ("film", "电影"), ("phone", "手机"), ("book", "书"),
    ("hotel", "酒店"), ("app", "应用"), ("delivery", "配送"), ("camera", "相机"), ("course", "课程"),
    ("coffee", "咖啡"),
    ("music", "音乐"), ("screen", "屏幕"), ("battery", "电池"), ("price", "价格"), ("seat", "座位"), ("team", "团队"),
)  # fmt: skip
FEELINGS = {
    "positive": (
        listed("great wonderful excellent lovely amazing perfect fantastic delightful superb brilliant"),
        listed("很好 很棒 非常出色 令人满意 特别好 太赞了 让人惊喜 无可挑剔 很不错 超出预期"),
    ),
    "negative": (
        listed("terrible awful bad disappointing horrible poor broken useless dreadful annoying"),
        listed("很差 太糟了 令人失望 非常差劲 特别烂 很糟糕 让人生气 一塌糊涂 毫无用处 不值这个钱"),
    ),
    "neutral": (
        listed("average ordinary okay standard usual acceptable typical normal unremarkable fair"),
        listed("一般 还行 普普通通 很普通 马马虎虎 中规中矩 没什么特别 过得去 跟平时一样 不好不坏"),
    ),
}
SENTIMENTS = {"positive": "正面", "negative": "负面", "neutral": "中性"}
ENGLISH_FRAMES = (
    "The {thing} was {word}.", "I think the {thing} is {word}.", "Honestly, the {thing} seemed {word}.",
    "Their {thing} is {word}.", "We found the {thing} {word}.", "My friend says the {thing} is {word}.",
    "Yesterday the {thing} was {word}.", "After a week, the {thing} is {word}.",
)  # fmt: skip
CHINESE_FRAMES = (
    "这个{thing}{word}。", "我觉得{thing}{word}。", "他们的{thing}{word}。", "说实话，{thing}{word}。",
    "昨天的{thing}{word}。", "朋友说{thing}{word}。", "用了一周，{thing}{word}。", "总的来说，{thing}{word}。",
)  # fmt: skip
TOPICS = {
    "sports": (
        listed("match goal team coach player race medal stadium league champion"),
        listed("比赛 进球 球队 教练 球员 赛跑 奖牌 体育场 联赛 冠军"),
    ),
    "technology": (
        listed("chip software robot server database network algorithm browser sensor compiler"),
        listed("芯片 软件 机器人 服务器 数据库 网络 算法 浏览器 传感器 编译器"),
    ),
    "finance": (
        listed("stock bank loan interest bond budget tax dividend fund invoice"),
        listed("股票 银行 贷款 利息 债券 预算 税收 分红 基金 发票"),
    ),
    "food": (
        listed("soup noodle recipe chef cake sauce salad bread cheese dumpling"),
        listed("汤 面条 菜谱 厨师 蛋糕 酱料 沙拉 面包 奶酪 饺子"),
    ),
    "weather": (
        listed("rain storm snow wind cloud sunshine fog temperature thunder frost"),
        listed("下雨 暴风 下雪 大风 多云 阳光 大雾 气温 打雷 霜冻"),
    ),
    "travel": (
        listed("flight luggage passport tourist airport cruise visa museum itinerary ticket"),
        listed("航班 行李 护照 游客 机场 邮轮 签证 博物馆 行程 车票"),
    ),
}
TOPIC_NAMES = {
    "sports": "体育", "technology": "科技", "finance": "财经", "food": "美食", "weather": "天气", "travel": "旅游",
}  # fmt: skip
ENGLISH_NEWS = (
    "A report about the {x} and the {y}.", "Everyone talks about the {x} and the {y}.", "First the {x}, then the {y}.",
    "Today: {x} and {y}.", "She asked about the {x} before the {y}.", "More on the {x} and the {y} tonight.",
)  # fmt: skip
CHINESE_NEWS = (
    "今天的新闻谈到{x}和{y}。", "大家都在讨论{x}与{y}。", "先是{x}，然后是{y}。", "关于{x}和{y}的报道。",
    "她问起{x}，又问{y}。", "今晚继续关注{x}和{y}。",
)  # fmt: skip
# the label in both languages, what a customer says about {x}
INTENTS = (
    ("refund", "退款",
     ("I want my money back for the {x}.", "Please refund the {x}.", "Can I get a refund for the {x}?",
     "Return my payment for the {x}."), ("{x}我要退款。", "请把{x}的钱退给我。", "{x}能退钱吗？", "我想退掉{x}。")),
    ("order status", "查询订单", ("Where is my {x}?", "Has the {x} been shipped yet?", "When will the {x} arrive?",
     "Track my {x}."), ("我的{x}到哪了？", "{x}发货了吗？", "{x}什么时候到？", "帮我查一下{x}的物流。")),
    ("cancel", "取消", ("Cancel my order of the {x}.", "I no longer want the {x}.", "Please stop the {x} order.",
     "Do not send the {x}."), ("取消{x}的订单。", "{x}我不想要了。", "请不要再寄{x}。", "{x}的订单帮我撤销。")),
    ("complaint", "投诉", ("The {x} arrived damaged.", "I am unhappy with the {x}.", "The {x} stopped working.",
     "I want to complain about the {x}."), ("{x}到手就坏了。", "我对{x}很不满。", "{x}用不了了。", "我要投诉{x}。")),
    ("purchase", "购买", ("I would like to buy a {x}.", "How can I order the {x}?", "Put one {x} in my cart.",
     "I will take the {x}."), ("我想买{x}。", "怎么下单买{x}？", "把{x}加入购物车。", "{x}我要了。")),
)  # fmt: skip
GOODS = (
    ("book", "书"), ("phone", "手机"), ("laptop", "电脑"), ("keyboard", "键盘"), ("lamp", "台灯"), ("umbrella", "雨伞"),
    ("backpack", "背包"), ("headset", "耳机"), ("chair", "椅子"), ("camera", "相机"), ("watch", "手表"),
    ("carpet", "地毯"),
    ("guitar", "吉他"), ("bicycle", "自行车"), ("mouse", "鼠标"), ("towel", "毛巾"), ("desk", "桌子"), ("cup", "水杯"),
)  # fmt: skip
ASKS = {
    "sentiment": (
        ("Classify the sentiment (positive, negative, neutral): {text}",
         "Is this positive, negative or neutral? {text}",
         "Sentiment: {text}", "What is the sentiment of: {text}"),
        ("判断情感（正面、负面、中性）：{text}", "这句话是正面、负面还是中性？{text}", "情感分类：{text}"),
    ),
    "topic": (
        ("Classify the topic (sports, technology, finance, food, weather, travel): {text}", "Topic: {text}",
         "What is the topic of: {text}"),
        ("判断主题（体育、科技、财经、美食、天气、旅游）：{text}", "主题分类：{text}", "这句话的主题是什么？{text}"),
    ),
    "intent": (
        ("Classify the intent (refund, order status, cancel, complaint, purchase): {text}", "Intent: {text}",
         "What does the customer want? {text}"),
        ("判断意图（退款、查询订单、取消、投诉、购买）：{text}", "意图分类：{text}", "这位客户想做什么？{text}"),
    ),
}  # fmt: skip


def draw(dice: Dice) -> Example:
    """One sentence to be labelled."""
    chinese = dice.chance(50)
    kind = dice.pick(("sentiment", "topic", "intent"))
    text, label = {"sentiment": sentiment, "topic": topic, "intent": intent}[kind](dice, chinese)
    question = dice.pick(ASKS[kind][chinese]).format(text=text)
    return ask("classification", f"{kind}:{wording(text)}", question, label)


def sentiment(dice: Dice, chinese: bool) -> tuple[str, str]:
    """What someone thinks of a thing."""
    feeling = dice.pick(tuple(FEELINGS))
    frame = dice.pick(CHINESE_FRAMES if chinese else ENGLISH_FRAMES)
    text = frame.format(thing=dice.pick(THINGS)[chinese], word=dice.pick(FEELINGS[feeling][chinese]))
    return text, SENTIMENTS[feeling] if chinese else feeling


def topic(dice: Dice, chinese: bool) -> tuple[str, str]:
    """Two words of one field."""
    field = dice.pick(tuple(TOPICS))
    x, y = dice.sample(TOPICS[field][chinese], 2)
    frame = dice.pick(CHINESE_NEWS if chinese else ENGLISH_NEWS)
    return frame.format(x=x, y=y), TOPIC_NAMES[field] if chinese else field


def intent(dice: Dice, chinese: bool) -> tuple[str, str]:
    """What a customer wants."""
    english_label, chinese_label, english_says, chinese_says = dice.pick(INTENTS)
    says = chinese_says if chinese else english_says
    return dice.pick(says).format(x=dice.pick(GOODS)[chinese]), chinese_label if chinese else english_label
