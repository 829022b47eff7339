"""Writes a BERT-base model folder with random weights: its shape is measured, not its answers.

    .cache/peers/export/bin/python benches/peers/random_bert.py TOKENIZER_FOLDER .cache/peers/bert-base

The vocabulary is that of TOKENIZER_FOLDER, a BERT folder, so that the same texts give the same tokens.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from transformers import BertConfig, BertModel

# The maximum of all-MiniLM-L6-v2, so that both models read the same tokens.
WINDOW = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tokenizer_folder", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(1)
    # The defaults of BertConfig are BERT-base: 12 layers of 768, 12 heads, 3,072 between.
    model = BertModel(BertConfig(), add_pooling_layer=False)
    model.save_pretrained(arguments.out)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        if (arguments.tokenizer_folder / name).exists():
            shutil.copy(arguments.tokenizer_folder / name, arguments.out / name)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    pooling = {"word_embedding_dimension": model.config.hidden_size, "pooling_mode_mean_tokens": True}
    written = {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": WINDOW, "do_lower_case": False},
        "1_Pooling/config.json": pooling,
    }
    for name, value in written.items():
        (arguments.out / name).parent.mkdir(exist_ok=True)
        (arguments.out / name).write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    main()
