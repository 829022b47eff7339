"""Writes the model folders: each family's shape with random weights, by transformers where it is installed."""

import json
import random
import shutil
import struct
from array import array
from pathlib import Path

from .. import plan, workload
from ..part import Part

# Weights of a product, in units of 1/sqrt(inputs). At 1 the scores of attention spread by about one, as
# a trained model's do; transformers' own 0.02 would leave attention nearly even, and hide its mistakes.
GAIN = 1.0
SMALL = plan.Shape("Bert", 64, 2, 2, 128, 30_522, 512)
LABELS = ["BAD", "FAIR", "GOOD"]


def run(part: Part) -> None:
    folder = part.work / "models"
    small(folder / "small")
    part.save(made=["small"])
    if not part.torch:
        part.note("no torch: only the model `small`, written without it; the families are left out")
        return
    for seed, (name, shape) in enumerate(plan.SHAPES.items()):
        random_model(folder / name, shape.small() if part.dry else shape, seed)
        part.save(made=[*part.data["made"], name])


def random_model(folder: Path, shape: plan.Shape, seed: int) -> None:
    import torch
    import transformers

    torch.manual_seed(seed)
    config = getattr(transformers, f"{shape.kind}Config")(**configuration(shape))
    model = getattr(transformers, shape.kind + ("ForSequenceClassification" if shape.labels else "Model"))(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = GAIN * parameter.shape[1] ** -0.5 if parameter.dim() == 2 and "embeddings" not in name else 0.1
            parameter.normal_(0.0, spread)
            if "LayerNorm.weight" in name or "layer_norm.weight" in name:
                parameter.add_(1.0)
            if shape.labels and parameter.shape[0] == shape.labels:
                # Labels that are told apart.
                parameter.mul_(3.0)
    model.save_pretrained(folder)
    if shape.kind == "Roberta":
        byte_level(folder)
    else:
        uncased(folder)
    if not shape.labels:
        modules(folder, shape)


def configuration(shape: plan.Shape) -> dict:
    if shape.kind == "DistilBert":
        values = {"dim": shape.hidden, "n_layers": shape.layers, "n_heads": shape.heads, "hidden_dim": shape.inner}
    else:
        values = {
            "hidden_size": shape.hidden,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "intermediate_size": shape.inner,
        }
    if shape.kind == "Roberta":
        values |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    if shape.labels:
        values |= {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}
        values |= {"problem_type": "single_label_classification"}
    return values | {"vocab_size": shape.words, "max_position_embeddings": shape.positions}


def uncased(folder: Path) -> None:
    """The vocabulary that BERT, MiniLM and DistilBERT share."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(workload.TOKENIZER / name, folder / name)


def byte_level(folder: Path) -> None:
    """RoBERTa's kind of tokenizer, trained on the workload: a small vocabulary in a table of full size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=2000, special_tokens=specials, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(workload.mixed(), trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
    names |= {"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>", "model_max_length": 512}
    write_json(folder / "tokenizer_config.json", names | {"tokenizer_class": "PreTrainedTokenizerFast"})


def modules(folder: Path, shape: plan.Shape) -> None:
    """The layout of sentence-transformers: mean over the tokens, length one where the shape says so."""
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")] + ([("2_Normalize", "Normalize")] if shape.normalize else [])
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    write_json(folder / "modules.json", listed)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 512, "do_lower_case": False})
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": shape.hidden, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    pooling |= {"pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False}
    write_json(folder / "1_Pooling" / "config.json", pooling)


def small(folder: Path) -> None:
    """A tiny BERT, written with nothing but the standard library. Its tokenizer counts tokens quickly,
    and without torch it is the model that the run is tried out with."""
    folder.mkdir(parents=True)
    values = configuration(SMALL) | {"model_type": "bert", "architectures": ["BertModel"], "hidden_act": "gelu"}
    write_json(folder / "config.json", values | {"type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0})
    chance = random.Random(1)
    header, blobs, end = {}, [], 0
    for name, shape in small_tensors().items():
        count = shape[0] * (shape[1] if len(shape) == 2 else 1)
        spread = 3.0 * shape[1] ** -0.5 if len(shape) == 2 else 0.2
        base = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        blob = array("f", (base + spread * (chance.random() - 0.5) for _ in range(count))).tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + len(blob)]}
        end += len(blob)
        blobs.append(blob)
    written = json.dumps(header).encode()
    written += b" " * (-len(written) % 8)
    with open(folder / "model.safetensors", "wb") as out:
        out.writelines([struct.pack("<Q", len(written)), written, *blobs])
    uncased(folder)
    modules(folder, SMALL)


def small_tensors() -> dict[str, list[int]]:
    h, inner = SMALL.hidden, SMALL.inner
    tables = {"word": SMALL.words, "position": SMALL.positions, "token_type": 2}
    tensors = {f"embeddings.{name}_embeddings.weight": [rows, h] for name, rows in tables.items()}

    def linear(name: str, out: int, inp: int) -> dict[str, list[int]]:
        return {f"{name}.weight": [out, inp], f"{name}.bias": [out]}

    def norm(name: str) -> dict[str, list[int]]:
        return {f"{name}.LayerNorm.weight": [h], f"{name}.LayerNorm.bias": [h]}

    tensors |= norm("embeddings")
    for layer in (f"encoder.layer.{i}" for i in range(SMALL.layers)):
        for name in ("query", "key", "value"):
            tensors |= linear(f"{layer}.attention.self.{name}", h, h)
        tensors |= linear(f"{layer}.attention.output.dense", h, h) | norm(f"{layer}.attention.output")
        tensors |= linear(f"{layer}.intermediate.dense", inner, h)
        tensors |= linear(f"{layer}.output.dense", h, inner) | norm(f"{layer}.output")
    return tensors


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
