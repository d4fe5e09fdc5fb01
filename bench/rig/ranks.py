"""
One process of several that share a model: `ranks.py MODE FOLDER STORE OUT`, with RANK and WORLD_SIZE set.
And what makes one to share: `ranks.py make FOLDER LAYERS`.

`one` holds all of it. `tensor` holds its part of every layer: columns of what spreads, rows of what
gathers, whole heads. `fsdp` holds its part of every weight and gathers a layer when it is its turn. Each
reads from the files what it keeps, and nothing else. Run by the Python of an engine that has torch;
nothing of Pilothouse is imported. What it found is written to OUT as JSON.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

PROMPT, ANSWER_TOKENS = 32, 12
SPREADS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
GATHERS = ("self_attn.o_proj", "mlp.down_proj")


def main() -> None:
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]), layers=int(sys.argv[3]))
    else:
        share(*sys.argv[1:5])


def make(folder: Path, *, layers: int) -> None:
    """A Llama of random weights, 45 MB a layer in 32 bits."""
    torch.manual_seed(7)
    config = LlamaConfig(
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=8,
        vocab_size=4096,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def share(mode: str, folder: str, store: str, out: str) -> None:
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    torch.manual_seed(7)
    # By a file, for a store of its own would listen to all networks.
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    before = resident_bytes("VmRSS")
    began = time.monotonic()
    model = filled(mode, Path(folder), init_device_mesh("cpu", (ranks,)))
    loaded_s = time.monotonic() - began
    began = time.monotonic()
    tokens, logits = answer(model)
    found = {
        "mode": mode,
        "rank": rank,
        "parameter_bytes": sum(map(held_bytes, model.parameters())),
        "peak_bytes": resident_bytes("VmHWM") - before,
        "layers": model.config.num_hidden_layers,
        "load_s": loaded_s,
        "token_s": (time.monotonic() - began) / ANSWER_TOKENS,
        "tokens": tokens,
        "logits": logits.tolist(),
    }
    Path(out).write_text(json.dumps(found))
    dist.barrier()  # nobody leaves while another still listens to it
    os._exit(0)  # gloo's threads may end a process that tidies up: seen on a busy machine


def filled(mode: str, folder: Path, mesh: DeviceMesh) -> Any:
    """The model with its weights, divided as `mode` says; nothing is read before it is known what is kept."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    if mode == "tensor":
        for layer in model.model.layers:
            plan = dict.fromkeys(SPREADS, ColwiseParallel()) | dict.fromkeys(GATHERS, RowwiseParallel())
            parallelize_module(layer, mesh, plan)
        parallelize_module(model, mesh, {"lm_head": ColwiseParallel(output_layouts=Replicate())})
    if mode == "fsdp":
        for layer in model.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    model.to_empty(device="cpu")
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config)  # no weights, so in no file
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file, torch.no_grad():
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                fill(model.get_parameter(name), file.get_tensor(name))
    return model


def fill(parameter: nn.Parameter, whole: torch.Tensor) -> None:
    data = parameter.data
    if isinstance(data, DTensor):
        part = distribute_tensor(whole.float(), data.device_mesh, data.placements, src_data_rank=None)
        data.to_local().copy_(part.to_local())
    else:
        data.copy_(whole)


def answer(model: Any) -> tuple[list[int], torch.Tensor]:
    """Greedy tokens after a fixed prompt, and the logits of the last step: shape (vocabulary,)."""
    tokens = torch.arange(1, PROMPT + 1).unsqueeze(0) % model.config.vocab_size
    with torch.no_grad():
        for _ in range(ANSWER_TOKENS):
            logits = model(input_ids=tokens, use_cache=False).logits[0, -1]
            tokens = torch.cat([tokens, logits.argmax().view(1, 1)], dim=1)
    return tokens[0, PROMPT:].tolist(), logits


def held_bytes(parameter: nn.Parameter) -> int:
    data = parameter.data
    part = data.to_local() if isinstance(data, DTensor) else data
    return part.numel() * part.element_size()


def resident_bytes(field: str) -> int:
    """VmRSS is now, VmHWM the most there ever was (Linux)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
