"""The model that Triton's Python backend runs: tokenizer, ONNX Runtime, mean pooling, as its users write it.

One copy lies in each model's folder as `1/model.py`; the differences stand in `config.pbtxt`.
"""

import json
import os
import sys

# The backend's interpreter ignores the variable.
sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton
from tokenizers import Tokenizer


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        settings = {name: value["string_value"] for name, value in config["parameters"].items()}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(settings["threads"])
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = onnxruntime.InferenceSession(settings["onnx"], options, providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(settings["tokenizer"])
        self.tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
        self.tokenizer.enable_truncation(int(settings["window"]))

    def execute(self, requests):
        """The texts of all requests that Triton put together are one padded batch."""
        inputs = [triton.get_input_tensor_by_name(request, "text").as_numpy().ravel() for request in requests]
        texts = [text.decode() for rows in inputs for text in rows]
        embeddings = self.embed(texts)
        responses = []
        start = 0
        for rows in inputs:
            part = embeddings[start : start + len(rows)]
            responses.append(triton.InferenceResponse([triton.Tensor("embedding", part)]))
            start += len(rows)
        return responses

    def embed(self, texts):
        encodings = self.tokenizer.encode_batch(texts)
        ids = np.array([encoding.ids for encoding in encodings], np.int64)
        mask = np.array([encoding.attention_mask for encoding in encodings], np.int64)
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = self.session.run(None, feed)[0]
        weights = mask[:, :, None].astype(np.float32)
        pooled = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
