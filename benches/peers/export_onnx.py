"""Turns a BERT-family model folder into the ONNX file that ONNX Runtime is measured with.

Four files are written: `model.onnx`, as torch exports it, `model_fused.onnx`, after ONNX Runtime's own
transformer optimizer (fused attention, layer norm, gelu), because the peer is measured at its best, and each of
them after ONNX Runtime's dynamic quantisation, `model_int8.onnx` and `model_fused_int8.onnx`.

    python -m venv .cache/peers/export
    .cache/peers/export/bin/pip install -r benches/peers/requirements-export.txt
    .cache/peers/export/bin/python benches/peers/export_onnx.py MODEL_FOLDER .cache/peers/onnx
"""

import argparse
import warnings
from pathlib import Path

import torch
from onnx import TensorProto
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers import optimizer
from transformers import AutoConfig, AutoModel


class Hidden(torch.nn.Module):
    """The encoder alone: pooling costs next to nothing and is left out on both sides."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids, attention_mask, token_type_ids):
        return self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state


def export(model_folder: Path, target: Path) -> None:
    # Eager attention exports as plain matrix products and a softmax: the pattern that the fusions know.
    encoder = AutoModel.from_pretrained(model_folder, attn_implementation="eager", dtype=torch.float32).eval()
    ids = torch.randint(1000, 2000, (2, 16))
    names = ["input_ids", "attention_mask", "token_type_ids"]
    torch.onnx.export(
        Hidden(encoder),
        (ids, torch.ones_like(ids), torch.zeros_like(ids)),
        target,
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_axes={name: {0: "batch", 1: "length"} for name in names},
        # The newer exporter's attention is not recognised by the fusions of onnxruntime 1.32.
        dynamo=False,
        opset_version=17,
    )


def fuse(model_folder: Path, source: Path, target: Path) -> dict[str, int]:
    config = AutoConfig.from_pretrained(model_folder)
    fused = optimizer.optimize_model(
        str(source),
        model_type="bert",
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        opt_level=1,
        use_gpu=False,
    )
    fused.save_model_to_file(str(target))
    return {name: count for name, count in fused.get_fused_operator_statistics().items() if count}


def quantise(source: Path) -> Path:
    """Weights to int8, activations when they come: signed weights, which is the faster way on VNNI."""
    target = source.with_name(f"{source.stem}_int8.onnx")
    # The fused operations are unknown to shape inference; their outputs are f32.
    options = {"DefaultTensorType": TensorProto.FLOAT}
    quantize_dynamic(source, target, weight_type=QuantType.QInt8, extra_options=options)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model_folder", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    arguments.out.mkdir(parents=True, exist_ok=True)
    plain, fused = arguments.out / "model.onnx", arguments.out / "model_fused.onnx"
    with torch.no_grad():
        export(arguments.model_folder, plain)
    print(plain, "->", fused, fuse(arguments.model_folder, plain, fused))
    for source in (plain, fused):
        print(source, "->", quantise(source))


if __name__ == "__main__":
    main()
