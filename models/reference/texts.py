"""The texts that the reference outputs are made for: all our own, built from word lists with a fixed seed.

Three kinds: edges (written out one by one), long texts (around and far beyond a model's maximum),
and sentences of many scripts and forms drawn by chance. Invisible characters are written as escapes.
"""

import random

EDGES = [
    # nothing, or next to nothing
    "", " ", "   ", "\t", "\n", "\r\n", "\n\n \t \n", "\u00a0", "\u2003\u2009", "\u3000", "\u200b", "\ufeff",
    "a", "Z", "7", ".", "?", "-", "_", "'", '"', "\\", "é", "ß", "ı", "İ", "好", "の", "한", "ب", "अ", "ก", "\U0001f600",
    # white space around and between
    " leading", "trailing ", "  both  sides  ", "a  b   c    d", "tab\tbetween\twords", "line one\nline two\r\nline three",
    "no\u00a0break\u2009thin\u3000wide spaces", "zero\u200bwidth\u200djoiner\u200cand\ufeffmark", "soft\u00adhyphen",
    # control characters and what a careless sender lets through
    "\x00", "\x00\x00\x00", "nul\x00inside", "\x00before and after\x00", "bell \x07 escape \x1b[31mred\x1b[0m", "\x01\x02\x03",
    "delete\x7fdelete", "\x85next line\u2028line separator\u2029paragraph", "unassigned \u0378 private \ue000 last \U0010ffff",
    "replacement \ufffd\ufffd character", "\u202eright to left override\u202c", "noncharacter \uffff here",
    # accents: composed, decomposed, stacked
    "Café crème", "Cafe\u0301 cre\u0300me", "e\u0301\u0302\u0303\u0304\u0305", "\u0301alone", "Z\u0351\u036b\u0343a\u0317\u0316l\u0341g\u0321o\u0315",
    "Ångström naïve coöperate façade Straße", "İstanbul'da ıssız bir yer", "Ệ ệ Ự ự", "ΌΔΟΣ όδος Σίσυφος", "ﬁne ﬂow ½ ² № ™ Ⅷ",
    "ＦＵＬＬ　ｗｉｄｔｈ　１２３", "𝕞𝕒𝕥𝕙 𝓵𝓮𝓽𝓽𝓮𝓻𝓼",
    # emoji: plain, with skin tone, joined, flags, keycaps
    "\U0001f600\U0001f601\U0001f602", "thumbs \U0001f44d\U0001f3fd up", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family",
    "\U0001f3f3\ufe0f\u200d\U0001f308", "\U0001f1eb\U0001f1f7\U0001f1ef\U0001f1f5", "1\ufe0f\u20e3 2\ufe0f\u20e3", "\u2764\ufe0f \u2764 <3", "ok\U0001f642ok",
    "\U0001f9d1\U0001f3fb\u200d\U0001f680\U0001f9d1\U0001f3ff\u200d\U0001f52c",
    # scripts
    "今天的天气很好", "我喜欢这部电影,但是结尾太长了。", "この店のラーメンはとても美味しい", "カタカナ ｶﾀｶﾅ ひらがな", "이 영화는 정말 재미있었다",
    "龍\U00020000\U0002a6d6", "هذا الكتاب جميل جدا", "السَّلامُ عَلَيْكُم", "القهوة باردة ١٢٣", "यह फिल्म बहुत अच्छी है", "क्षत्रिय ज्ञान श्री", "ภาษาไทยไม่มีช่องว่าง",
    "Погода сегодня хорошая", "Το φαγητό ήταν κρύο", "האוכל היה טעים", "இந்த படம் நன்றாக உள்ளது", "ეს კარგი დღეა", "Mixed 中文 and العربية and हिन्दी",
    # names of special tokens, typed by a user
    "[CLS] typed [SEP] by [MASK] hand [UNK]", "[PAD]", "a [PAD] b", "<s> typed </s> by <mask> hand <unk>", "<pad>", "a <pad> b <pad> c", "</s></s>",
    "##ing ## #", "\u2581under \u2581\u2581 line", "\u0120gpt space \u010a",
    # forms
    "https://example.org/a/b?c=d&e=f#g", "mail me: first.last+tag@example.org", "C:\\Users\\name\\file (2).txt", "fn main() { println!(\"{}\", 1 + 1); }",
    "SELECT * FROM t WHERE a <> 'b' -- comment", "{\"key\": [1, 2.5, null], \"other\": \"va\\\"lue\"}", "<b>bold</b> &amp; <i>more</i>", "x = y**2 + z_1 % 3 != 0",
    "!!!!!!!!!!!!", "...", "?!?!?!", "a-b-c-d", "don't can't won't it's", "U.S.A. e.g. i.e. Ph.D.", "3.14159 1,000,000 1e-12 0x1F -42 +7", "€5 £6 ¥7 $8 ₹9",
    "2026-11-23T14:05:59.123Z", "+49 (0)30 1234-5678", "@name #tag #two_words", "ALL CAPITALS HERE", "mIxEd CaSe WoRdS", "“curly” ‘quotes’ — and – dashes…",
]

WHO = ["the driver", "my neighbour", "our team", "a young singer", "the old printer", "this phone", "their support desk", "the second act",
       "every waiter", "the main actor", "her lawyer", "the night train", "a stray cat", "the installer", "nobody"]
DID = ["was late again", "worked like a charm", "broke after two days", "made us laugh out loud", "never answered", "surpassed what we hoped for",
       "felt rushed and hollow", "smelled of fresh paint", "saved the whole evening", "crashed at startup", "is worth every cent", "left me cold"]
WHEN = ["yesterday", "on Monday morning", "in the end", "for once", "at 7:45", "after the update", "since March", "", "", "as always"]
SO = ["and I would do it again", "so we asked for our money back", "which nobody expected", "but the price is fair", "and that is that", "", "", "though I can't say why"]
END = [".", "!", "?", "...", "", " :)", " :-(", "!!"]
CHINESE = ["今天", "电影", "很", "好看", "服务", "太慢", "了", "我们", "不", "喜欢", "这个", "手机", "价格", "便宜"]
JAPANESE = ["とても", "美味しい", "店", "の", "ラーメン", "は", "残念", "でした", "また", "行きたい", "カメラ", "高い"]
KOREAN = ["정말", "영화", "재미있다", "서비스", "느리다", "오늘", "친구", "가격", "좋은"]
ARABIC = ["هذا", "الكتاب", "جميل", "جدا", "لكن", "الخدمة", "بطيئة", "اليوم", "شكرا", "سيء"]
HINDI = ["यह", "फिल्म", "बहुत", "अच्छी", "है", "सेवा", "धीमी", "आज", "खाना", "ठंडा", "था"]
RUSSIAN = ["погода", "сегодня", "хорошая", "фильм", "скучный", "очень", "медленно", "спасибо", "книга"]
EMOJI = ["\U0001f600", "\U0001f62d", "\U0001f44d\U0001f3ff", "\u2764\ufe0f", "\U0001f468\u200d\U0001f4bb", "\U0001f1e9\U0001f1ea", "\U0001f525", "\U0001f937\u200d\u2640\ufe0f"]
CODE = ["for i in range({n}):", "if (x{n} >= {n}) {{ return; }}", "let v: Vec<u8> = vec![{n}; 4];", "kubectl get pods -n ns-{n}", "ERROR [{n}] worker: timeout after {n} ms",
        "GET /items/{n}?page={n} HTTP/1.1", "0x{n:08x}", "/var/log/app-{n}.log", "https://example.com/{n}/img_{n}.png"]
MARKS = ["\u0300", "\u0301", "\u0302", "\u0303", "\u0308", "\u030a", "\u0327", "\u0331"]
CONTROLS = ["\x00", "\x01", "\x08", "\x0b", "\x0c", "\x1f", "\x7f", "\x85", "\u200b", "\u200e", "\u2028", "\ufeff"]


def sample(count: int, seed: int, tokens_max: int) -> list[str]:
    """At least `count` texts without copies: all edges, then long ones, then sentences by chance."""
    chance = random.Random(seed)
    texts = list(dict.fromkeys(EDGES + long(chance, tokens_max)))
    while len(texts) < count:
        text = chance.choice(FORMS)(chance)
        if text not in texts:
            texts.append(text)
    return texts


def long(chance: random.Random, tokens_max: int) -> list[str]:
    """Texts that end just before, at and after the maximum, and texts far beyond it."""
    near = [" ".join(["a"] * n) for n in range(tokens_max - 4, tokens_max + 2)]
    # A text must be cut before all of it is tokenized, yet these hide their last word behind
    # thousands of characters that give no token (or one) in some family: a cut by length loses it.
    sparse = [" " * (16 * tokens_max) + "good", "\x01" * (8 * tokens_max) + "good", "a" + "\u0301" * (8 * tokens_max) + " good"]
    dense = ["a" * (8 * tokens_max), "好" * (2 * tokens_max), "\U0001f600" * (2 * tokens_max), "!" * (2 * tokens_max), "1234567890" * tokens_max]
    far = [words(chance, n) for n in (tokens_max // 2, tokens_max, 2 * tokens_max, 12 * tokens_max)]
    return near + sparse + dense + far


def words(chance: random.Random, count: int) -> str:
    found: list[str] = []
    while len(found) < count:
        found += english(chance).split()
    return " ".join(found[:count])


def english(chance: random.Random) -> str:
    parts = [chance.choice(WHO), chance.choice(DID), chance.choice(WHEN), chance.choice(SO)]
    text = " ".join(part for part in parts if part)
    return text[0].upper() + text[1:] + chance.choice(END)


def paragraph(chance: random.Random) -> str:
    return " ".join(english(chance) for _ in range(chance.randint(2, 5)))


def unspaced(chance: random.Random) -> str:
    source = chance.choice([CHINESE, JAPANESE])
    return "".join(chance.choices(source, k=chance.randint(2, 12))) + chance.choice(["。", "!", ""])


def spaced(chance: random.Random) -> str:
    source = chance.choice([KOREAN, ARABIC, HINDI, RUSSIAN])
    return " ".join(chance.choices(source, k=chance.randint(1, 10)))


def with_emoji(chance: random.Random) -> str:
    return english(chance) + chance.choice(["", " "]) + "".join(chance.choices(EMOJI, k=chance.randint(1, 4)))


def code(chance: random.Random) -> str:
    lines = [chance.choice(CODE).format(n=chance.randint(0, 99999)) for _ in range(chance.randint(1, 3))]
    return chance.choice(["\n", " ", "\n    "]).join(lines)


def accented(chance: random.Random) -> str:
    return "".join(c + (chance.choice(MARKS) if c.isalpha() and chance.random() < 0.3 else "") for c in english(chance))


def dirty(chance: random.Random) -> str:
    return "".join(c + (chance.choice(CONTROLS) if chance.random() < 0.1 else "") for c in english(chance))


def mixed(chance: random.Random) -> str:
    pieces = [chance.choice([english, unspaced, spaced, code, with_emoji])(chance) for _ in range(3)]
    return chance.choice([" ", "", " / ", "\n"]).join(pieces)


FORMS = [english, english, english, paragraph, unspaced, spaced, with_emoji, code, accented, dirty, mixed]
