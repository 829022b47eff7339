"""Small models of every family with random weights, each a complete model folder."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import torch
import transformers
from tokenizers import Tokenizer

import small_tokenizers as small
import texts

TOKENS_MAX = 128
SHAPE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
DISTILBERT_SHAPE = {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128}
LABELS = {1: ["RATING"], 3: ["BAD", "FAIR", "GOOD"], 5: ["toxic", "spam", "praise", "question", "off-topic"]}
# Tags with both prefixes, one that is never begun, and one without a prefix.
TAGS = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "I-LOC", "DATE"]


@dataclass(frozen=True)
class Family:
    name: str
    kind: str  # the prefix of the transformers classes
    tokenizer: Callable[[], Tokenizer]
    labels: int = 3  # 0: the bare encoder, for embeddings
    problem: str = "single_label_classification"
    tags: bool = False  # a label for each token
    pooling: str = ""
    normalize: bool = False
    tokens_max: int = TOKENS_MAX
    stored_as: str = "safetensors"  # or "sharded", "pickle"
    vocabulary_only: bool = False
    config: dict = field(default_factory=dict)


def bert_pieces() -> Tokenizer:
    return small.word_piece(small.BERT, "[CLS]", "[SEP]")


def cased_pieces() -> Tokenizer:
    return small.word_piece(small.BERT, "[CLS]", "[SEP]", lowercase=False)


def mpnet_pieces() -> Tokenizer:
    return small.word_piece(small.MPNET, "<s>", "</s>")


def xlm_pieces() -> Tokenizer:
    return small.unigram(small.ROBERTA)


def camembert_pieces() -> Tokenizer:
    return small.unigram(small.CAMEMBERT)


# RoBERTa's line counts positions from padding_idx + 1, so two of its rows are never used by a text.
SHIFTED = SHAPE | {"max_position_embeddings": TOKENS_MAX + 2, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
ROBERTA = SHIFTED | {"type_vocab_size": 1, "layer_norm_eps": 1e-5}
CAMEMBERT = ROBERTA | {"bos_token_id": 5, "eos_token_id": 6}
BERT = SHAPE | {"max_position_embeddings": TOKENS_MAX, "pad_token_id": 0}
DISTILBERT = DISTILBERT_SHAPE | {"max_position_embeddings": TOKENS_MAX, "pad_token_id": 0}

FAMILIES = [
    Family("bert", "Bert", bert_pieces, config=BERT),
    Family("bert-multi-label", "Bert", bert_pieces, labels=5, problem="multi_label_classification", config=BERT),
    Family("bert-regression", "Bert", bert_pieces, labels=1, problem="regression", config=BERT),
    Family("bert-relu", "Bert", bert_pieces, config=BERT | {"hidden_act": "relu"}),
    Family("bert-gelu-new", "Bert", cased_pieces, config=BERT | {"hidden_act": "gelu_new"}),
    Family("bert-sharded", "Bert", bert_pieces, stored_as="sharded", config=BERT),
    Family("bert-pickle", "Bert", bert_pieces, stored_as="pickle", config=BERT),
    Family("bert-vocabulary", "Bert", bert_pieces, vocabulary_only=True, config=BERT),
    Family("bert-embedding-mean", "Bert", bert_pieces, labels=0, pooling="mean", normalize=True, tokens_max=64, config=BERT),
    Family("bert-embedding-cls", "Bert", bert_pieces, labels=0, pooling="cls", config=BERT),
    Family("distilbert", "DistilBert", bert_pieces, config=DISTILBERT),
    Family("roberta", "Roberta", small.byte_level, config=ROBERTA),
    Family("xlm-roberta", "XLMRoberta", xlm_pieces, config=ROBERTA),
    Family("xlm-roberta-embedding-cls", "XLMRoberta", xlm_pieces, labels=0, pooling="cls", normalize=True, config=ROBERTA),
    Family("camembert", "Camembert", camembert_pieces, config=CAMEMBERT),
    Family("mpnet", "MPNet", mpnet_pieces, config=SHIFTED | {"layer_norm_eps": 1e-5}),
    Family("mpnet-embedding-mean", "MPNet", mpnet_pieces, labels=0, pooling="mean", normalize=True, config=SHIFTED),
    Family("bert-tokens", "Bert", bert_pieces, tags=True, config=BERT),
    Family("bert-tokens-cased", "Bert", cased_pieces, tags=True, config=BERT),
    Family("distilbert-tokens", "DistilBert", bert_pieces, tags=True, config=DISTILBERT),
    Family("roberta-tokens", "Roberta", small.byte_level, tags=True, config=ROBERTA),
    Family("xlm-roberta-tokens", "XLMRoberta", xlm_pieces, tags=True, config=ROBERTA),
    Family("camembert-tokens", "Camembert", camembert_pieces, tags=True, config=CAMEMBERT),
    Family("mpnet-tokens", "MPNet", mpnet_pieces, tags=True, config=SHIFTED | {"layer_norm_eps": 1e-5}),
]


def build(family: Family, seed: int, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tokenizer = family.tokenizer()
    model = random_model(family, seed, tokenizer.get_vocab_size())
    if family.tags:
        balance(model, tokenizer)
    store_weights(family, model, folder)
    store_tokenizer(family, tokenizer, folder)
    if family.pooling:
        store_modules(family, folder)


def random_model(family: Family, seed: int, vocab_size: int):
    values = dict(family.config) | {"vocab_size": vocab_size}
    if family.tags:
        values |= {"id2label": dict(enumerate(TAGS)), "label2id": {n: i for i, n in enumerate(TAGS)}}
    elif family.labels:
        names = LABELS[family.labels]
        values |= {"problem_type": family.problem, "id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
    config = getattr(transformers, family.kind + "Config")(**values)
    torch.manual_seed(seed)
    head = "ForTokenClassification" if family.tags else "ForSequenceClassification" if family.labels else "Model"
    model = getattr(transformers, family.kind + head)(config)
    randomize(model)
    return model.eval()


@torch.no_grad()
def randomize(model) -> None:
    """Fresh models have zero biases, unit LayerNorm weights and a zero padding row, which would hide a
    loader that skips them; and weights so small that every text would get nearly the same output."""
    for name, parameter in model.named_parameters():
        parameter.normal_(0.0, 0.2)
        if "LayerNorm.weight" in name or "layer_norm.weight" in name:
            parameter.add_(1.0)


@torch.no_grad()
def balance(model, tokenizer: Tokenizer) -> None:
    """Every hidden state of a random encoder has the same large part, which would let one label win everywhere: the
    bias takes it away."""
    ids = [tokenizer.encode(text).ids[:TOKENS_MAX] for text in texts.sample(100, 1, TOKENS_MAX)]
    logits = torch.cat([model(torch.tensor([one])).logits[0] for one in ids])
    model.classifier.bias -= logits.mean(0)


def store_weights(family: Family, model, folder: Path) -> None:
    if family.stored_as == "pickle":
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder)
        # Files of that age also hold this buffer, which is no weight.
        state = dict(model.state_dict()) | {"bert.embeddings.position_ids": torch.arange(TOKENS_MAX).unsqueeze(0)}
        torch.save(state, folder / "pytorch_model.bin")
        return
    model.save_pretrained(folder, max_shard_size="100KB" if family.stored_as == "sharded" else "1GB")


def store_tokenizer(family: Family, tokenizer: Tokenizer, folder: Path) -> None:
    known = tokenizer.get_vocab()
    bert = "[CLS]" in known
    config = {
        "model_max_length": TOKENS_MAX,
        "cls_token": "[CLS]" if bert else "<s>", "sep_token": "[SEP]" if bert else "</s>",
        "pad_token": "[PAD]" if bert else "<pad>", "mask_token": "[MASK]" if bert else "<mask>",
        "unk_token": "[UNK]" if "[UNK]" in known else "<unk>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    if family.vocabulary_only:
        config |= {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True}
        lines = [token for token, _ in sorted(known.items(), key=lambda item: item[1])]
        (folder / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    write_json(folder / "tokenizer_config.json", config)


def store_modules(family: Family, folder: Path) -> None:
    """The layout of sentence-transformers, as published models have it."""
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")] + ([("2_Normalize", "Normalize")] if family.normalize else [])
    write_json(folder / "modules.json", [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"} for i, (path, kind) in enumerate(modules)])
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": family.tokens_max, "do_lower_case": False})
    (folder / "1_Pooling").mkdir()
    write_json(folder / "1_Pooling" / "config.json", {
        "word_embedding_dimension": SHAPE["hidden_size"], "pooling_mode_cls_token": family.pooling == "cls",
        "pooling_mode_mean_tokens": family.pooling == "mean", "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False})


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
