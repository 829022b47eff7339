"""The outputs of the original implementation: transformers in f32 on the CPU, each text alone, no padding."""

import json

import torch
import transformers
from tokenizers import Tokenizer

from .. import plan, workload
from ..part import Part

TRAINED = workload.TOKENIZER


def run(part: Part) -> None:
    texts = sample(part.sizes)
    workload.write(part.work / "reference", "texts", texts)
    folders = {name: folder for name, folder in part.models().items() if name in plan.SHAPES}
    if (TRAINED / "model.safetensors").exists():
        folders["sentiment"] = TRAINED
    else:
        part.note("the trained model models/sentiment did not travel: only random weights are compared")
    for name, folder in folders.items():
        rows = outputs(folder, texts)
        path = part.work / "reference" / f"{name}.json"
        path.write_text(json.dumps({"folder": str(folder), "rows": rows}), encoding="utf-8")
        part.save(compared=[*part.data.get("compared", []), name])


def sample(sizes: plan.Sizes) -> list[str]:
    """Short and long next to each other, the shortest possible too."""
    texts = ["a", "A fine film."] + workload.mixed()[: sizes.mixed]
    for length in sizes.lengths:
        texts[len(texts) // 2 : len(texts) // 2] = workload.equal(length, sizes.equal)
    return texts


@torch.inference_mode()
def outputs(folder, texts: list[str]) -> list[list[float]]:
    """Probabilities of a classifier; the mean of the last hidden states of an encoder, of length one where
    the folder says so."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(512)
    embeds = (folder / "modules.json").exists()
    kind = transformers.AutoModel if embeds else transformers.AutoModelForSequenceClassification
    model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    normalize = embeds and "Normalize" in (folder / "modules.json").read_text()
    rows = []
    for text in texts:
        out = model(input_ids=torch.tensor([tokenizer.encode(text).ids]))
        if embeds:
            row = out.last_hidden_state[0].mean(0)
            row = torch.nn.functional.normalize(row, dim=0) if normalize else row
        else:
            row = out.logits[0].softmax(0)
        rows.append([float(f"{x:.8g}") for x in row.tolist()])
    return rows
