"""Write the module trees of published architectures to ``tests/trees/``.

    pip install torchvision timm transformers
    python benchmarks/module_trees.py

A tree is what the choice of rows reads: each module's path, class, class of torch and the shapes of
its own parameters, a line a module, so that the tests need none of the three libraries.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

TREES = Path(__file__).resolve().parent.parent / "tests" / "trees"
SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "vocab_size": 50}

TORCHVISION = (
    "convnext_tiny densenet121 efficientnet_b0 googlenet inception_v3 mobilenet_v2 resnet18 "
    "shufflenet_v2_x0_5 swin_t regnet_y_400mf vgg11_bn maxvit_t"
).split()
TIMM = "efficientvit_b0 davit_tiny cspdarknet53 regnety_002 mixer_s32_224 edgenext_xx_small".split()
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "Bert": {**SMALL, "num_hidden_layers": 2},
    "GPT2": {"n_embd": 16, "n_head": 2, "n_layer": 3, "vocab_size": 50, "n_positions": 16},
    "T5": {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "vocab_size": 50},
    "ViT": {**SMALL, "num_hidden_layers": 2},
    "Llama": {**SMALL, "num_hidden_layers": 2, "num_key_value_heads": 2},
    "Mixtral": {**SMALL, "num_hidden_layers": 2, "num_key_value_heads": 2, "num_local_experts": 4},
    "Mamba": {"hidden_size": 16, "num_hidden_layers": 3, "vocab_size": 50, "state_size": 4},
    "Whisper": {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "vocab_size": 60,
                "encoder_attention_heads": 2, "decoder_attention_heads": 2, "pad_token_id": 1,
                "encoder_ffn_dim": 24, "decoder_ffn_dim": 24},
    "CLIP": {"text_config": {**SMALL, "num_hidden_layers": 2},
             "vision_config": {**SMALL, "num_hidden_layers": 3}},
    "Segformer": {},
}  # fmt: skip


def tree(model: nn.Module) -> str:
    """One line a module: path, class, the class of torch it is, shapes of its own parameters."""
    lines = []
    for path, module in model.named_modules(remove_duplicate=False):
        kind = type(module)
        base = next(c for c in kind.__mro__ if c.__module__.startswith("torch.nn.modules."))
        if issubclass(kind, (nn.ParameterList, nn.ParameterDict)):
            base = nn.Module
        own = [tuple(p.shape) for p in module._parameters.values() if p is not None]
        shapes = " ".join("x".join(map(str, shape)) or "1" for shape in own)
        lines.append(f"{path or '.'}\t{kind.__qualname__}\t{base.__name__}\t{shapes}".rstrip())
    return "\n".join(lines) + "\n"


def outline(make: Callable[[], nn.Module]) -> nn.Module:
    """The model without its numbers, where its constructor allows that."""
    try:
        with torch.device("meta"):
            return make()
    except Exception:
        return make()


def main() -> None:
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    warnings.filterwarnings("ignore")
    torchvision, timm, hf = map(
        importlib.import_module, ("torchvision.models", "timm", "transformers")
    )
    models: dict[str, Callable[[], nn.Module]] = {}
    for name in TORCHVISION:
        extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        models[name] = lambda name=name, extra=extra: torchvision.get_model(name, **extra)  # type: ignore[misc]
    for name in TIMM:
        models[name] = lambda name=name: timm.create_model(name)  # type: ignore[misc]
    for name, options in TRANSFORMERS.items():
        config = getattr(hf, f"{name}Config")(**options)
        models[name.lower()] = lambda name=name, config=config: getattr(hf, f"{name}Model")(config)  # type: ignore[misc]
    TREES.mkdir(parents=True, exist_ok=True)
    for name, make in models.items():
        (TREES / f"{name}.txt").write_text(tree(outline(make)), "utf-8")


if __name__ == "__main__":
    main()
