"""Runs the original implementations: transformers for classifiers, sentence-transformers for embeddings."""

from pathlib import Path

import sentence_transformers
import tokenizers
import torch
import transformers

# Two thirds of the tolerance are left to whoever is compared with these outputs.
OWN_ERROR_MAX = 3e-5
STRATEGIES = ["none", "simple", "first", "average", "max"]
EAGER = {"dtype": torch.float32, "attn_implementation": "eager"}


def made_with() -> dict[str, str]:
    modules = [torch, transformers, sentence_transformers, tokenizers]
    return {module.__name__: module.__version__.split("+")[0] for module in modules}


def classify(folder: Path, texts: list[str], tokens_max: int) -> list[dict]:
    """Raw logits, each text alone, so that no padding takes part."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, **EAGER).eval()

    def run(text: str):
        inputs = tokenizer(text, truncation=True, max_length=tokens_max, return_tensors="pt")
        return inputs["input_ids"], model(**inputs).logits

    return exact(model, run, texts)


def label_tokens(folder: Path, texts: list[str], tokens_max: int) -> list[dict]:
    """Raw logits of every token, special tokens included, one token after the other."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForTokenClassification.from_pretrained(folder, **EAGER).eval()

    def run(text: str):
        inputs = tokenizer(text, truncation=True, max_length=tokens_max, return_tensors="pt")
        return inputs["input_ids"], model(**inputs).logits.flatten(1)

    return exact(model, run, texts)


def entities(folder: Path, texts: list[str]) -> list[dict]:
    """What the pipeline makes of each text, under each strategy: label, first and last code point, score."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForTokenClassification.from_pretrained(folder, **EAGER).eval()
    cases = [{"text": text} for text in texts]
    for strategy in STRATEGIES:
        run = transformers.pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy=strategy)
        for case in cases:
            case[strategy] = [
                [one["entity" if strategy == "none" else "entity_group"], one["start"], one["end"], float(f"{one['score']:.6g}")]
                for one in run(case["text"])]
    return cases


def embed(folder: Path, texts: list[str], tokens_max: int) -> list[dict]:
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu", model_kwargs=dict(EAGER)).eval()
    if model.max_seq_length != tokens_max:
        raise SystemExit(f"{folder} has a maximum of {model.max_seq_length} tokens, not {tokens_max}")

    def run(text: str):
        inputs = model.preprocess([text])
        return inputs["input_ids"], model(dict(inputs))["sentence_embedding"]

    return exact(model, run, texts)


@torch.no_grad()
def exact(model, run, texts: list[str]) -> list[dict]:
    """The cases in f32, after a look at how far f32 itself is from f64 on the same weights."""
    single = [run(text) for text in texts]
    model.double()
    double = [run(text)[1] for text in texts]
    error = max((a.double() - b).abs().max().item() for (_, a), b in zip(single, double))
    print(f"  f32 against f64: {error:.1e} at most, over {len(texts)} texts", flush=True)
    if error > OWN_ERROR_MAX:
        raise SystemExit(f"the reference itself is off by {error:.1e}, more than {OWN_ERROR_MAX:.0e}")
    return [{"text": text, "ids": ids[0].tolist(), "output": [float(f"{x:.8g}") for x in output[0].tolist()]}
            for text, (ids, output) in zip(texts, single)]
