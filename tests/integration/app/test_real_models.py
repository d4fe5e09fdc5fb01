"""The models that Pilothouse is delivered with, from the configured index to the engine."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fixtures_models import SMOLLM2_DIGEST
from pilothouse.domain.model import Artifact

pytestmark = pytest.mark.engine

REFERENCE = Path(__file__).parents[2] / "fixtures" / "minilm_reference.json"
MIN_COSINE = 0.999
EMBED = """
import json, sys
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.embedding = True
params.n_ctx = params.n_batch = params.n_ubatch = 512
params.n_parallel = 1
params.cpuparams.n_threads = 1
server = xllamacpp.Server(params)
answers = [server.handle_embeddings({"input": text}) for text in json.load(sys.stdin)]
json.dump([answer["data"][0]["embedding"] for answer in answers], sys.stdout)
"""


def test_the_demonstration_model_is_what_it_was(smollm2: Artifact) -> None:
    assert smollm2.digest == SMOLLM2_DIGEST
    assert smollm2.header.architecture == "llama"
    assert smollm2.header.context_tokens == 8192
    assert smollm2.header.quantization == "Q4_1"
    assert "<|im_start|>" in smollm2.header.chat_template


def test_the_embedding_model_is_converted(minilm: Artifact) -> None:
    header = minilm.header

    assert (header.architecture, header.pooling, header.quantization) == ("bert", "mean", "F16")
    assert (header.embedding_length, header.context_tokens, header.tokens) == (384, 512, 30522)


def test_the_engines_vectors_are_those_of_the_reference(minilm_gguf: Path, record_property: object) -> None:
    items = json.loads(REFERENCE.read_text())["items"]
    texts = [item["text"] for item in items]
    done = subprocess.run(
        [sys.executable, "-c", EMBED, str(minilm_gguf)],
        input=json.dumps(texts).encode(),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]

    ours = np.array(json.loads(done.stdout))
    theirs = np.array([item["vector"] for item in items])
    cosines = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)

    record_property("note", f"cosine of {len(texts)} texts with the reference: {cosines.min():.6f} or more")  # type: ignore[operator]
    assert {text: float(c) for text, c in zip(texts, cosines, strict=True) if c < MIN_COSINE} == {}
