"""Small tokenizers of the three kinds that the families use, with vocabularies counted from our own texts.

The trainers for WordPiece and Unigram give another vocabulary at each run (they walk hash maps),
so those two are counted here; the trainer for byte-level BPE does not.
"""

import math
import random
import re
import unicodedata
from collections import Counter

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import texts

BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MPNET = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>"]
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
CAMEMBERT = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>", "<mask>"]


def corpus() -> list[str]:
    chance = random.Random(17)
    return [chance.choice(texts.FORMS)(chance) for _ in range(1500)]


def most_common(counts: Counter, number: int) -> list[str]:
    """Ties are broken by the alphabet, so that the choice never depends on the order of counting."""
    return sorted(counts, key=lambda piece: (-counts[piece], piece))[:number]


def word_piece(specials: list[str], cls: str, sep: str, lowercase: bool = True) -> Tokenizer:
    words = Counter(re.findall(r"\w+|[^\w\s]", " ".join(corpus()).lower() if lowercase else " ".join(corpus())))
    characters, endings = Counter(), Counter()
    for word, count in words.items():
        characters.update({character: count for character in word})
        endings.update({"##" + word[-n:]: count for n in (2, 3, 4) if len(word) > n})
    # A short alphabet, so that some characters of the reference texts are unknown to the vocabulary.
    alphabet = most_common(characters, 110)
    whole = [word for word in most_common(words, 250) if len(word) > 1]
    pieces = specials + alphabet + ["##" + character for character in alphabet] + whole[:120] + most_common(endings, 60)
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.add_special_tokens(specials)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return framed(tokenizer, cls, sep)


def byte_level(vocab_size: int = 600) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=ROBERTA, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(corpus(), trainer)
    with_mask(tokenizer)
    ids = {token: tokenizer.token_to_id(token) for token in ("<s>", "</s>")}
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", ids["</s>"]), ("<s>", ids["<s>"]), add_prefix_space=False)
    return tokenizer


def unigram(specials: list[str], vocab_size: int = 500) -> Tokenizer:
    characters, longer = Counter(), Counter()
    for word in unicodedata.normalize("NFKC", " ".join(corpus())).split():
        marked = "\u2581" + word
        characters.update(marked)
        longer.update(marked[i : i + n] for n in range(2, 9) for i in range(len(marked) - n + 1))
    pieces = most_common(characters, 180)
    pieces += most_common(longer, vocab_size - len(specials) - len(pieces) - 1)
    counts = characters + longer
    scored = [(special, 0.0) for special in specials if special != "<mask>"]
    scored += [(piece, math.log(counts[piece] / counts.total())) for piece in pieces]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=specials.index("<unk>")))
    tokenizer.add_special_tokens([special for special in specials if special != "<mask>"])
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")])
    tokenizer.decoder = decoders.Metaspace()
    with_mask(tokenizer)
    return framed(tokenizer, "<s>", "</s>")


def with_mask(tokenizer: Tokenizer) -> None:
    """The mask of the RoBERTa line swallows the space before it."""
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])


def framed(tokenizer: Tokenizer, cls: str, sep: str) -> Tokenizer:
    ids = [(token, tokenizer.token_to_id(token)) for token in (cls, sep)]
    pair = f"{cls} $A {sep} $B:1 {sep}:1" if cls == "[CLS]" else f"{cls} $A {sep} {sep} $B {sep}"
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{cls} $A {sep}", pair=pair, special_tokens=ids)
    return tokenizer
