"""Names, places and polite words that several tasks draw from."""

from pipelines.lifecycle.data.dice import Dice, listed

ENGLISH_FIRST = listed(
    "Anna Ben Clara David Emma Frank Grace Henry Iris Jack Kate Liam Mia Noah Olivia Paul Rosa Sam Tina Victor Wendy "
    "Adam Bella Carl Diana Eric Fiona George Hannah Ivan Julia Kevin Laura Mark Nina Oscar Peter Ruth Simon Tom"
)
ENGLISH_LAST = listed(
    "Smith Brown Taylor Wilson Davis Clark Lewis Walker Hall Young King Wright Scott Green Baker Adams Nelson Carter "
    "Turner Parker Collins Morris Murphy Cook Rogers Reed Bailey Cooper Ward Gray"
)
CHINESE_LAST = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗"
CHINESE_FIRST = "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超霞平刚红玉英华文斌健波辉雪梅琳晨宇浩然子轩"
ENGLISH_CITIES = listed(
    "London Paris Berlin Madrid Rome Vienna Oslo Dublin Lisbon Prague Boston Chicago Denver Seattle Austin Toronto "
    "Sydney Tokyo Seoul Mumbai Cairo Nairobi Lima Beijing Shanghai Hangzhou Shenzhen Chengdu Wuhan Nanjing"
)
CHINESE_CITIES = listed(
    "北京 上海 杭州 深圳 成都 武汉 南京 广州 西安 重庆 天津 苏州 长沙 青岛 大连 厦门 昆明 郑州 合肥 沈阳 "
    "巴黎 伦敦 东京 首尔 纽约 柏林 悉尼 罗马 莫斯科 新加坡"
)
CHINESE_ITEMS = listed("书 手机 电脑 键盘 鼠标 水杯 台灯 雨伞 背包 耳机 椅子 桌子 相机 手表 毛巾 地毯 吉他 自行车")
ENGLISH_ITEMS = listed(
    "book phone laptop keyboard mouse cup lamp umbrella backpack headset chair desk camera watch towel carpet guitar "
    "bicycle"
)
ONSETS = listed("b br d dr f g gr h j k l m n p pr r s st t tr v w z")
VOWELS = listed("a e i o u ai ea ia")
CODAS = ("", "", "n", "r", "l", "s", "m", "k")


def english_name(dice: Dice) -> str:
    """A first name, mostly with a last one; now and then an invented one, so that copying is learnt, not a list."""
    if dice.chance(35):
        return " ".join(invented(dice) for _ in range(dice.whole(1, 2)))
    first = dice.pick(ENGLISH_FIRST)
    return f"{first} {dice.pick(ENGLISH_LAST)}" if dice.chance(70) else first


def chinese_name(dice: Dice) -> str:
    """A family name and one or two characters; now and then any characters, so that copying is learnt, not a list."""
    if dice.chance(12):
        return "".join(chr(dice.whole(0x4E00, 0x9FA5)) for _ in range(dice.whole(2, 3)))
    return dice.pick(CHINESE_LAST) + "".join(dice.pick(CHINESE_FIRST) for _ in range(dice.whole(1, 2)))


def invented(dice: Dice) -> str:
    """A pronounceable word that means nothing."""
    count = dice.whole(2, 3)
    return "".join(dice.pick(ONSETS) + dice.pick(VOWELS) for _ in range(count)).capitalize() + dice.pick(CODAS)


def name(dice: Dice, chinese: bool) -> str:
    """A person."""
    return chinese_name(dice) if chinese else english_name(dice)


def city(dice: Dice, chinese: bool) -> str:
    """A city."""
    if chinese:
        return dice.pick(CHINESE_CITIES)
    return invented(dice) if dice.chance(20) else dice.pick(ENGLISH_CITIES)


def item(dice: Dice, chinese: bool) -> str:
    """A thing to buy."""
    return dice.pick(CHINESE_ITEMS if chinese else ENGLISH_ITEMS)


ENGLISH_BEFORE = (
    "", "", "", "", "Please tell me: ", "Quick question: ", "Hi, ", "Hello! ", "Hey, ", "I have a question. ",
    "Excuse me, ", "One thing: ", "I would like to know: ", "Tell me, ", "So, ", "Sorry to ask, ",
)  # fmt: skip
ENGLISH_AFTER = (
    "", "", "", "", " Thanks!", " Thank you.", " Please.", " Be brief.", " I am new here.", " Just curious.",
)  # fmt: skip
CHINESE_BEFORE = (
    "", "", "", "", "请问", "请告诉我，", "你好，", "您好，", "我想知道，", "问一下，", "麻烦问一下，", "想请教一下，",
    "我有个问题：", "那么，", "不好意思，",
)  # fmt: skip
CHINESE_AFTER = ("", "", "", "", "谢谢！", "谢谢。", "请简短回答。", "我是新手。", "只是好奇。", "拜托了。")


def politely(dice: Dice, question: str, chinese: bool) -> str:
    """`question` as one person or another would put it."""
    if chinese:
        asked = dice.pick(CHINESE_BEFORE) + question
        if dice.chance(20) and not asked.rstrip("？。！").isascii():  # a bare command must not lose its language
            return asked.rstrip("？。！")
        return asked + dice.pick(CHINESE_AFTER)
    before = dice.pick(ENGLISH_BEFORE)
    first = question.split(" ", 1)[0]
    if before.endswith(", ") and first not in ("I", "Strata") and first[1:].islower():
        question = question[0].lower() + question[1:]
    if dice.chance(15):
        return (before + question).lower().rstrip("?.!")
    return before + question + dice.pick(ENGLISH_AFTER)
