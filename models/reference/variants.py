"""Variants of the small model folders: each changes a file beside the weights, and with it ids or vectors.

Expected ids and vectors come from sentence-transformers or transformers, which load the folder by themselves.
"""

import base64
import json
import shutil
import tempfile
import zlib
from pathlib import Path
from typing import Callable

import sentence_transformers
import torch
import transformers

import original

MEAN, CLS, VOCABULARY = "bert-embedding-mean", "bert-embedding-cls", "bert-vocabulary"
LONG = " ".join(["The old printer broke after two days", "and nobody answered", "every waiter was late again"] * 12)
TEXTS = ["", "the printer broke after two days", "The Printer BROKE", "Café crème déjà", "漢字 film 東京", "[MASK] typed [SEP] by hand", "  two  blanks ",
         "<person> smelled of <city> today", "a[mask] <MASK> [unk] b", "hello <mask> world", "tab\tand\nline",
         "\u3000\uff21 \u2126 \ufdfa ", "afternoon printers, latecomers late again: waiters ##ice", LONG]
TOKENS = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]", "unk_token": "[UNK]"}
PLAIN = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}


# A map of characters as SentencePiece writes it, made by its trainer from the rules: tab, newline, return and U+3000 to a
# blank, U+FF21 and U+FF22 to A and B, U+2126 to U+03A9, U+FDFA to its eighteen characters.
MAP = zlib.decompress(base64.b64decode(
    "eNol0wmwj1UYB+Bz/3OZ0UwzxpqJbCFLslSW7IQoJEt2kV1KdsJfXVtZyx7Fxb32fb32ZOdastwb2Q1mULTY6bl8M8/8zjvne8/3zZxzQmwIIU8IGTKE8EK6kPZE4yZEwo"
    "s5QkhQp1dHYyMhWjiEJLXXonNkRGqNxhuvj0ZCRo2ZyURWspCdbFgqvMTLbE6JhFwyJ7l5hbzPfyHkJx8FeJVCFMSnw2sUpQivU4w3KE5JSlCaUrzFm5ThbcpRlncoT0Uq"
    "UJlKVKUK1anGu9SgFjV5j9rUpQ4f8D71qceHNOAjGtKYRjSlCc34mBY0pxUtaUNrPqEt7WlHBz6lEx3pQme60ZXP6M7n9KAnX9CLL+lDb/rRlwH0ZxADGcxXDGUIw9I2nW"
    "/4muHEMZIRjGYU3/EtYxnDeMYxkQn8wPdMZhJTmcJ0pvEjM5jFTH7mJ+Ywm7nEM595JJLAQhawmEUsZQnLWcZKVrCaVaxlDetZx0Y2sIkktqSdQ7axlR1sZye/sItf2cNu"
    "9rGXA+znEAc5TDJHOcJvHOMExznFSVJJ4TS/8wdnOMdZLnCeS1zkCpe5yp8hJlyX19LmFsSES2Niwk3jG8/mQrjFbf7ib+7wL/9wl/+4zz0e8oDHPOIpT57dvarOffLCkL"
    "I2NS51dJ6URBGXOjL8D+Dylvg="))


class Folder:
    """A copy of a family's folder that is being changed."""

    def __init__(self, family: str, place: Path):
        self.source = Path(__file__).resolve().parent.parent / "tests/families" / family
        self.family, self.place = family, place
        shutil.copytree(self.source, place, ignore=shutil.ignore_patterns("parity.json"))

    def json(self, name: str, value, merge: bool = True) -> None:
        path = self.place / name
        old = json.loads(path.read_text()) if merge and path.exists() else {}
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({**old, **value} if merge else value, ensure_ascii=True))

    def bert(self, **values) -> None:
        self.json("tokenizer_config.json", {**TOKENS, "model_max_length": 128, "tokenizer_class": "BertTokenizer", **values}, merge=False)

    def tokenizer(self, change: Callable[[dict], None]) -> None:
        value = json.loads((self.place / "tokenizer.json").read_text())
        change(value)
        self.json("tokenizer.json", value, merge=False)

    def shorten(self, count: int) -> int:
        """Drops the last words, so that added tokens have rows in the table. Gives the first free id."""
        kept = []
        def drop(value: dict) -> None:
            vocab = value["model"]["vocab"]
            last = len(vocab) - count
            value["model"]["vocab"] = {word: id for word, id in vocab.items() if id < last}
            kept.append(last)
        self.tokenizer(drop)
        return kept[0]

    def vocabulary(self) -> None:
        """vocab.txt in place of tokenizer.json."""
        vocab = json.loads((self.place / "tokenizer.json").read_text())["model"]["vocab"]
        (self.place / "vocab.txt").write_text("".join(word + "\n" for word in sorted(vocab, key=vocab.get)), encoding="utf-8")
        (self.place / "tokenizer.json").unlink()


def do_lower_case_false(f: Folder) -> None:
    f.bert(do_lower_case=False)


def tokenize_chinese_chars_false(f: Folder) -> None:
    f.bert(tokenize_chinese_chars=False)


def strip_accents_false(f: Folder) -> None:
    f.bert(strip_accents=False)


def class_without_settings(f: Folder) -> None:
    """The class has lower case, whatever tokenizer.json says."""
    f.tokenizer(lambda t: t["normalizer"].update(lowercase=False))
    (f.place / "tokenizer_config.json").unlink()


def class_in_config(f: Folder) -> None:
    f.tokenizer(lambda t: t["normalizer"].update(lowercase=False))
    f.json("tokenizer_config.json", {**TOKENS, "model_max_length": 128}, merge=False)
    f.json("config.json", {"tokenizer_class": "BertTokenizerFast"})


def added_tokens_decoder(f: Folder) -> None:
    first = f.shorten(2)
    special = {str(i): {**PLAIN, "content": token, "special": True} for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])}
    added = {str(first + 1): {**PLAIN, "content": "<city>", "special": False}, str(first): {**PLAIN, "content": "<person>", "normalized": True, "special": False}}
    f.bert(added_tokens_decoder={**special, **added})


def added_tokens_json(f: Folder) -> None:
    first = f.shorten(2)
    f.vocabulary()
    f.bert()
    f.json("added_tokens.json", {"<city>": first + 1, "<person>": first})


def special_tokens_map(f: Folder) -> None:
    """It beats tokenizer_config.json where that has no added_tokens_decoder."""
    f.vocabulary()
    f.bert(unk_token="[PAD]")
    f.json("special_tokens_map.json", {"unk_token": "[UNK]", "additional_special_tokens": ["printer", "##ice"],
                                       "mask_token": {**PLAIN, "content": "[MASK]", "lstrip": True}})


def additional_special_tokens(f: Folder) -> None:
    f.bert(additional_special_tokens=["after", "##ice"])


def own_special_token(f: Folder) -> None:
    f.bert(waiter_token="waiter")


def split_special_tokens(f: Folder) -> None:
    f.bert(split_special_tokens=True)


def distilbert_vocabulary(f: Folder) -> None:
    f.vocabulary()
    f.bert(tokenizer_class="DistilBertTokenizer", do_lower_case=False)


def truncation_side(f: Folder) -> None:
    f.bert(truncation_side="left")


def truncation_in_tokenizer_json(f: Folder) -> None:
    f.bert()
    f.tokenizer(lambda t: t.update(truncation={"direction": "Left", "max_length": 128, "strategy": "LongestFirst", "stride": 0}))


def max_len(f: Folder) -> None:
    f.json("tokenizer_config.json", {**TOKENS, "max_len": 32, "tokenizer_class": "BertTokenizer"}, merge=False)
    (f.place / "sentence_bert_config.json").unlink()


def max_seq_length_outranks(f: Folder) -> None:
    f.bert(model_max_length=16)


def tokenizer_args(f: Folder) -> None:
    f.json("sentence_bert_config.json", {"max_seq_length": 64, "tokenizer_args": {"model_max_length": 24, "truncation_side": "left", "do_lower_case": False}})
    f.bert()


def processing_kwargs(f: Folder) -> None:
    f.json("sentence_bert_config.json", {"processing_kwargs": {"text": {"max_length": 20}, "common": {"padding": True}}})


def module_lowercase(f: Folder) -> None:
    f.bert(do_lower_case=False)
    f.json("sentence_bert_config.json", {"do_lower_case": True})


def default_prompt(f: Folder) -> None:
    f.json("config_sentence_transformers.json", {"prompts": {"query": "the driver: ", "document": "nobody: "}, "default_prompt_name": "query"})


def prompts_without_default(f: Folder) -> None:
    f.json("config_sentence_transformers.json", {"prompts": {"query": "the driver: "}, "default_prompt_name": None, "similarity_fn_name": "cosine"})


def modules_path(f: Folder) -> None:
    """The encoder in a folder of its own; another model lies at the top."""
    inner = f.place / "0_Transformer"
    inner.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "sentence_bert_config.json"):
        (f.place / name).rename(inner / name)
    other = f.source.parent / CLS
    shutil.copy(other / "config.json", f.place)
    shutil.copy(other / "model.safetensors", f.place)
    modules = json.loads((f.place / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    f.json("modules.json", modules, merge=False)


def bert_words_in_roberta(f: Folder) -> None:
    """Korean RoBERTa models have BERT's tokenizer and no other sign of it than its class."""
    other = f.source.parent / VOCABULARY
    (f.place / "tokenizer.json").unlink()
    shutil.copy(other / "vocab.txt", f.place)
    f.bert()


def add_prefix_space(f: Folder) -> None:
    f.json("tokenizer_config.json", {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": True})


def no_prefix_space(f: Folder) -> None:
    f.json("tokenizer_config.json", {"tokenizer_class": "RobertaTokenizerFast"})
    f.tokenizer(lambda t: t["pre_tokenizer"].update(add_prefix_space=True))


def mapped() -> dict:
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(MAP).decode()}


def sentence_piece(f: Folder) -> None:
    f.json("tokenizer_config.json", {"tokenizer_class": "XLMRobertaTokenizer"})
    f.tokenizer(lambda t: t.update(normalizer=mapped()))


def sentence_piece_of_transformers_4(f: Folder) -> None:
    f.json("tokenizer_config.json", {"tokenizer_class": "XLMRobertaTokenizerFast"})
    f.tokenizer(lambda t: t.update(
        normalizer={"type": "Sequence", "normalizers": [mapped(), {"type": "Strip", "strip_left": False, "strip_right": True},
                                                        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u2581"}]},
        pre_tokenizer={"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}))


def camembert(f: Folder) -> None:
    f.json("tokenizer_config.json", {"tokenizer_class": "CamembertTokenizer"})
    f.tokenizer(lambda t: t.update(normalizer=None))


def mpnet_vocabulary(f: Folder) -> None:
    f.vocabulary()
    f.json("tokenizer_config.json", {"tokenizer_class": "MPNetTokenizer"})


def labels_that_are_numbers(f: Folder) -> None:
    f.json("config.json", {"id2label": {"00": 0, "01": 1, "02": 2}, "label2id": None, "initializer_range": float("nan")})


VARIANTS: dict[Callable[[Folder], None], str] = {
    do_lower_case_false: MEAN, tokenize_chinese_chars_false: MEAN, strip_accents_false: MEAN, class_without_settings: MEAN, class_in_config: MEAN,
    added_tokens_decoder: MEAN, added_tokens_json: MEAN, special_tokens_map: MEAN, additional_special_tokens: MEAN, own_special_token: MEAN,
    split_special_tokens: MEAN, distilbert_vocabulary: MEAN, truncation_side: MEAN, truncation_in_tokenizer_json: MEAN, max_len: MEAN,
    max_seq_length_outranks: MEAN, tokenizer_args: MEAN, processing_kwargs: MEAN, module_lowercase: MEAN, default_prompt: MEAN,
    prompts_without_default: MEAN, modules_path: MEAN, bert_words_in_roberta: "roberta", add_prefix_space: "roberta", no_prefix_space: "roberta",
    sentence_piece: "xlm-roberta", sentence_piece_of_transformers_4: "xlm-roberta", camembert: "camembert", mpnet_vocabulary: "mpnet-embedding-mean",
    labels_that_are_numbers: "bert",
}


def make() -> list[dict]:
    found = []
    for change, family in VARIANTS.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Folder(family, Path(temporary) / change.__name__)
            change(folder)
            cases = embed(folder.place) if "embedding" in family else classify(folder.place)
            found.append({"name": change.__name__, "family": family, "files": files(folder), "cases": cases})
    return found


def files(folder: Folder) -> dict[str, str | dict]:
    """Every file of the folder: the text of one that was changed, or the file of a family that it equals."""
    found: dict[str, str | dict] = {}
    for path in sorted(p for p in folder.place.rglob("*") if p.is_file()):
        same = [s for s in (folder.source / path.name, folder.source.parent / CLS / path.name, folder.source / path.relative_to(folder.place))
                if s.exists() and s.read_bytes() == path.read_bytes()]
        name = str(path.relative_to(folder.place))
        found[name] = {"of": str(same[0].relative_to(folder.source.parent))} if same else path.read_text(encoding="utf-8")
    return found


def embed(place: Path) -> list[dict]:
    model = sentence_transformers.SentenceTransformer(str(place), device="cpu", model_kwargs=dict(original.EAGER)).eval()
    prompt = model._resolve_prompt(None, None)
    cases = []
    for text in TEXTS:
        ids = model.preprocess([text], prompt=prompt)["input_ids"][0].tolist()
        cases.append(case(text, ids, torch.tensor(model.encode(text))))
    return cases


@torch.no_grad()
def classify(place: Path) -> list[dict]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(place, **original.EAGER).eval()
    cases = []
    for text in TEXTS:
        inputs = tokenizer(text, truncation=True, return_tensors="pt")
        cases.append(case(text, inputs["input_ids"][0].tolist(), model(**inputs).logits[0]))
    return cases


def case(text: str, ids: list[int], output: torch.Tensor) -> dict:
    return {"text": text, "ids": ids, "output": [float(f"{x:.8g}") for x in output.tolist()]}


def write(path: Path) -> None:
    """One variant after the other, one case a line; ASCII, so that no editor alters an invisible character."""
    parts = []
    for variant in make():
        cases = ",\n".join(json.dumps(case, separators=(",", ":")) for case in variant.pop("cases"))
        parts.append(json.dumps(variant)[:-1] + ', "cases": [\n' + cases + "\n]}")
    head = json.dumps({"made_with": original.made_with()})[:-1]
    path.write_text(head + ', "variants": [\n' + ",\n".join(parts) + "\n]}\n", encoding="ascii")
