"""Probe published architectures, all of which are known to train, and count false alarms.

    pip install torch torchvision timm transformers
    OMP_NUM_THREADS=1 python benchmarks/real_models.py real_models.jsonl [--only PART]
    python benchmarks/real_models.py real_models.jsonl --table

Each is made by its library with random weights, at the library's own init, and probed at batch 8
with a second look, in train mode; nothing is downloaded. Where the published size is too large for
a benchmark, the transformers have fewer and narrower layers. Each model has a process of its own
and so many seconds of a core. A line is added to the file as soon as a model is done, and what is
there is not probed again, so that a run that was cut off goes on; the quick ones come first.

``ARGUED`` names those that a gate may rightly fail, each with its reason.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import zip_longest
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import nn

import gradprobe

BATCH, SECONDS, PATIENCE, CLASSES, TOKENS, POSITIONS = 8, 120, 10, 10, 1000, 64
FAILS = ("vanishing", "exploding", "shattered", "dead", "disconnected", "non-finite")
ARGUED: dict[str, str] = {}

# Of torchvision, by the side of their images.
TORCHVISION = {
    64: """shufflenet_v2_x1_0 regnet_y_400mf mobilenet_v2 resnet18 mobilenet_v3_small mnasnet0_5
    squeezenet1_1 vgg11_bn densenet121 regnet_x_400mf resnet50 shufflenet_v2_x0_5 efficientnet_b0
    mobilenet_v3_large vgg13_bn regnet_y_800mf resnet34 mnasnet1_0 shufflenet_v2_x1_5
    squeezenet1_0 regnet_x_800mf vgg16_bn resnext50_32x4d shufflenet_v2_x2_0 mnasnet1_3
    efficientnet_b1 convnext_tiny swin_t vgg19_bn regnet_y_1_6gf regnet_x_1_6gf resnet101
    densenet169 efficientnet_b2 wide_resnet50_2 swin_v2_t resnet152 densenet201 efficientnet_v2_s
    convnext_small""",
    128: "googlenet alexnet",
    224: "vit_b_32 vit_b_16 maxvit_t",
    299: "inception_v3",
}
# Of timm, by the side of their images; "+": the side is given to the model too.
TIMM = {
    "64": """resnet10t resnet14t resnet26 resnet26d resnet50d resnet50 resnetv2_50 resnetv2_50t
    resnetv2_18 resnetblur50 seresnet18 seresnet50 ecaresnet50t ecaresnetlight
    gcresnet33ts resnest14d resnest26d res2net50_26w_4s skresnet18 skresnext50_32x4d
    regnety_002 regnety_004 regnetx_002 regnetx_004 regnety_008 regnetz_005 dla34 dla46_c dla60
    dla60_res2net dpn48b dpn68 selecsls42 selecsls42b selecsls60 vovnet39a ese_vovnet19b_dw
    ese_vovnet19b_slim hardcorenas_a mobilenetv1_100 mobilenetv2_050 mobilenetv2_100
    mobilenetv3_small_050 mobilenetv3_small_100 mobilenetv3_large_100 mobilenetv4_conv_small
    mobilenetv4_conv_medium efficientnet_lite0 efficientnet_b0 tf_efficientnetv2_b0
    efficientnet_es mixnet_s mixnet_m mnasnet_small semnasnet_100 fbnetc_100 fbnetv3_b spnasnet_100
    lcnet_050 lcnet_100 tinynet_a tinynet_e ghostnet_050 ghostnet_100 ghostnetv2_100 repghostnet_050
    rexnet_100 rexnetr_100 hrnet_w18_small hrnet_w18_small_v2 cspresnet50 cspdarknet53
    cspresnext50 darknet53 darknetaa53 repvgg_a0 repvgg_a1 repvgg_b0 mobileone_s0 mobileone_s1
    densenet121 densenetblur121d vgg11_bn vgg16_bn vgg11 nf_resnet26 nfnet_f0 dm_nfnet_f0
    eca_nfnet_l0 nf_regnet_b0 convnext_atto convnext_femto convnext_pico convnextv2_atto
    convnextv2_femto fasternet_t0 fasternet_t1 starnet_s1 starnet_s2 inception_next_atto
    rdnet_tiny hgnet_tiny hgnetv2_b0 efficientvit_b0 efficientvit_b1 edgenext_xx_small
    edgenext_x_small repvit_m0_9 repvit_m1 fastvit_t8 mobilevit_xxs mobilevit_xs mobilevitv2_050
    poolformer_s12 poolformerv2_s12 caformer_s18 convformer_s18 lambda_resnet26t gernet_s
    gernet_m xception41 ese_vovnet39b resnext26ts mambaout_femto mambaout_kobe swiftformer_xs
    shvit_s1 convmixer_768_32""",
    "128": "inception_v4 inception_resnet_v2 xception legacy_xception",
    "+64": """vit_tiny_patch16_224 deit_tiny_patch16_224 deit3_small_patch16_224
    vit_small_patch16_224 vit_wee_patch16_reg1_gap_256 cait_xxs24_224 xcit_nano_12_p16_224
    pit_ti_224 mixer_s16_224 gmlp_ti16_224 gmlp_s16_224 resmlp_12_224
    resmlp_24_224 beit_base_patch16_224 beitv2_base_patch16_224
    eva02_tiny_patch14_224 vit_medium_patch16_gap_240 tnt_s_patch16_224 vit_relpos_small_patch16_224
    swin_tiny_patch4_window7_224 swin_s3_tiny_224 flexivit_small volo_d1_224""",
    "224": """levit_128s levit_128 efficientformer_l1 efficientformerv2_s0 coat_tiny coat_lite_tiny
    convit_tiny twins_svt_small twins_pcpvt_small pvt_v2_b0 pvt_v2_b1 nest_tiny sequencer2d_s
    mvitv2_tiny hiera_tiny_224 tiny_vit_5m_224 efficientvit_m0 efficientvit_m2 davit_tiny
    focalnet_tiny_srf gcvit_xxtiny coatnet_nano_rw_224 maxvit_pico_rw_256 edgenext_small
    mobileone_s2 cs3darknet_s crossvit_9_240 crossvit_tiny_240 visformer_small mobilevitv2_075
    swinv2_cr_tiny_224 bat_resnext26ts botnet26t_256 halonet26t eca_halonext26ts haloregnetz_b
    visformer_tiny coatnet_pico_rw_224""",
}
# Of transformers, by model type, at a smaller size: with tokens, an encoder and a decoder, images.
SMALL = {
    "hidden_size": 128,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "vocab_size": TOKENS,
}
OWN_SIZES = {  # what must fit the sizes above
    "gpt_neo": {"attention_types": [[["global", "local"], 3]]},
    "gptj": {"rotary_dim": 16},
    "codegen": {"rotary_dim": 16},
    "xlnet": {"d_head": 32},
}
LANGUAGE = """bert roberta distilbert albert electra mpnet convbert roformer camembert ernie fnet
    nystromformer megatron-bert rembert modernbert xlm-roberta deberta deberta-v2 gpt2 gpt_neo
    gpt_neox gptj opt llama mistral qwen2 qwen3 gemma gemma2 gemma3_text phi phi3 falcon bloom mpt
    stablelm starcoder2 olmo olmo2 cohere granite codegen biogpt xglm mixtral qwen2_moe mamba rwkv
    openai-gpt ctrl xlnet smollm3""".split()
TWO_SIDED = "t5 mt5 bart mbart pegasus marian blenderbot m2m_100 led switch_transformers".split()
VISION = """vit deit beit dinov2 data2vec-vision vit_msn yolos convnext convnextv2 regnet resnet
    swin focalnet poolformer segformer levit mobilenet_v1 mobilenet_v2 pvt cvt dinat""".split()

Made = tuple[nn.Module, Any]  # a model, and what it is called with


def of_torchvision(name: str, side: int) -> Made:
    import torchvision

    options = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    model = torchvision.models.get_model(name, num_classes=CLASSES, **options)
    return model, torch.randn(BATCH, 3, side, side)


def of_timm(name: str, side: str) -> Made:
    import timm

    pixels = int(side)
    options = {"img_size": pixels} if side.startswith("+") else {}
    model = timm.create_model(name, num_classes=CLASSES, **options)
    if side == "224":
        pixels = model.default_cfg["input_size"][-1]
    return model, torch.randn(BATCH, 3, pixels, pixels)


def small(kind: str) -> Any:
    """The configuration of a model type with as much of ``SMALL`` as it knows."""
    from transformers import AutoConfig

    own = AutoConfig.for_model(kind)
    names = [name for name in SMALL if hasattr(own, name) and not isinstance(own, dict)]
    more: dict[str, Any] = dict(OWN_SIZES.get(kind, {}))
    if "head_dim" in vars(own):
        more["head_dim"] = 32
    if getattr(own, "num_key_value_heads", None):
        more["num_key_value_heads"] = 4
    if getattr(own, "pad_token_id", None):
        more["pad_token_id"] = 0
    return AutoConfig.for_model(kind, **{name: SMALL[name] for name in names}, **more)


def of_language(kind: str) -> Made:
    from transformers import AutoModel

    tokens = torch.randint(3, TOKENS, (BATCH, POSITIONS))
    return AutoModel.from_config(small(kind)), {"input_ids": tokens}


def of_two_sided(kind: str) -> Made:
    from transformers import AutoConfig, AutoModel

    own = AutoConfig.for_model(kind)
    sizes = {"d_model": 128, "vocab_size": TOKENS, "pad_token_id": 0}
    sizes |= {name: 128 for name in ("d_ff",) if hasattr(own, name)}
    sizes |= {name: 32 for name in ("d_kv",) if hasattr(own, name)}
    for end in ("encoder", "decoder"):
        sizes |= {f"{end}_{k}": v for k, v in (("layers", 4), ("ffn_dim", 256))}
        sizes[f"{end}_attention_heads"] = 4
    sizes = {name: size for name, size in sizes.items() if hasattr(own, name)}
    tokens = {
        name: torch.randint(3, TOKENS, (BATCH, POSITIONS))
        for name in ("input_ids", "decoder_input_ids")
    }
    return AutoModel.from_config(AutoConfig.for_model(kind, **sizes)), tokens


def of_vision(kind: str) -> Made:
    from transformers import AutoConfig, AutoModel

    own = AutoConfig.for_model(kind)
    side = 64 if hasattr(own, "image_size") and kind not in ("levit", "swin", "yolos") else 224
    options: dict[str, Any] = {}
    if getattr(own, "image_size", None) is not None and side == 64:
        options["image_size"] = side
    if isinstance(getattr(own, "hidden_size", None), int) and hasattr(own, "num_hidden_layers"):
        sizes = {k: v for k, v in SMALL.items() if isinstance(getattr(own, k, None), int)}
        options |= {k: v for k, v in sizes.items() if k != "vocab_size"}
    model = AutoModel.from_config(AutoConfig.for_model(kind, **options))
    return model, {"pixel_values": torch.randn(BATCH, 3, side, side)}


def networks() -> Iterator[tuple[str, Callable[[], Made]]]:
    """Each network by its name, of every library in turn; what is slow comes last."""
    quick = [
        _images("torchvision", of_torchvision, TORCHVISION, 64),
        _images("timm", of_timm, TIMM, "64"),
        ((f"transformers:{kind}", partial(of_language, kind)) for kind in LANGUAGE),
        ((f"transformers:{kind}", partial(of_two_sided, kind)) for kind in TWO_SIDED),
        _images("timm", of_timm, TIMM, "+64"),
    ]
    for turn in zip_longest(*quick):
        yield from (network for network in turn if network)
    yield from ((f"transformers:{kind}", partial(of_vision, kind)) for kind in VISION)
    yield from _images("timm", of_timm, TIMM, "128", "224")
    yield from _images("torchvision", of_torchvision, TORCHVISION, 128, 224, 299)


def _images(
    library: str, make: Callable[..., Made], by_side: dict[Any, str], *sides: Any
) -> Iterator[tuple[str, Callable[[], Made]]]:
    for side in sides:
        for name in by_side[side].split():
            yield f"{library}:{name}", partial(make, name, side)


def probed(make: Callable[[], Made]) -> dict[str, Any]:
    """What gradprobe says of a network, or why it has not been made or could not be probed."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        model, inputs = make()
        model.train()
    except Exception as error:
        return {"not_made": f"{type(error).__name__}: {error}"[:300]}
    try:
        report = gradprobe.probe(model, inputs, deep=True)
    except Exception as error:
        return {"crash": f"{type(error).__name__}: {error}"[:300]}
    training = report.training
    return {
        "verdict": str(report.verdict),
        "findings": sorted({f"{f.rule} {f.name}: {f.message}"[:200] for f in report.findings}),
        "errors": sorted({f.name for f in report.findings if str(f.severity) == "error"}),
        "reach": report.reach,
        "rows": len(report.profile.rows),
        "signals": training and training.signals and training.signals._asdict(),
        "probability": training and training.probability and training.probability._asdict(),
        "reason": training and training.reason,
    }


def _answer(make: Callable[[], Made], end: Connection) -> None:
    used = int(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (used + SECONDS, used + SECONDS))
    end.send(probed(make))


def in_a_process(make: Callable[[], Made]) -> dict[str, Any]:
    """The same in a process of its own, which ends after so many seconds."""
    context = multiprocessing.get_context("fork")  # the libraries need not be imported again
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(make, theirs))
    start = time.perf_counter()
    process.start()
    theirs.close()
    line: dict[str, Any] = {"slow": SECONDS}
    try:
        line = ours.recv() if ours.poll(PATIENCE * SECONDS) else line
    except EOFError:
        process.join()
        out_of_time = process.exitcode in (-signal.SIGKILL, -signal.SIGXCPU)
        line = line if out_of_time else {"crash": f"the process ended with {process.exitcode}"}
    process.kill()
    process.join()
    return line | {"seconds": round(time.perf_counter() - start, 1)}


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run(path: Path, only: str) -> None:
    import timm  # noqa: F401  # once, and not in each process
    import torchvision  # noqa: F401
    import transformers  # noqa: F401

    done = {line["name"] for line in read(path)}
    for name, make in networks():
        if name in done or only not in name:
            continue
        done.add(name)
        line = {"name": name} | in_a_process(make)
        with path.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        said = line.get("verdict") or next(k for k in ("not_made", "crash", "slow") if k in line)
        print(f"{name:44}{said:14}{line['seconds']:7.1f} s", flush=True)


def table(lines: list[dict[str, Any]]) -> None:
    """Count the verdicts, and name each network that was not judged healthy."""
    made = [line for line in lines if "not_made" not in line]
    verdicts = Counter(line.get("verdict", "none") for line in made)
    print(f"{len(made)} networks; {len(lines) - len(made)} more were not made")
    for verdict, count in verdicts.most_common():
        print(f"  {verdict:16}{count:5}{count / len(made):8.1%}")
    groups: dict[str, Callable[[dict[str, Any]], Any]] = {
        "crashes": lambda line: line.get("crash"),
        "too slow": lambda line: line.get("slow"),
        "exit 1": lambda line: ", ".join(line.get("errors", ())),
        "weak": lambda line: line.get("verdict") == "weak" and probability(line),
        "healthy, and nothing measured": unmeasured,
    }
    for title, about in groups.items():
        named = {line["name"]: about(line) for line in made if about(line)}
        print(f"\n{title}: {len(named)} of {len(made)}")
        for name, story in named.items():
            print(f"  {name:44}{story}  {ARGUED.get(name, '')}")


def probability(line: dict[str, Any]) -> str:
    chance = line["probability"]
    return f"{chance['sgd']:.0%} under SGD" if chance else "by its reach alone"


def unmeasured(line: dict[str, Any]) -> str | None:
    healthy = line.get("verdict") == "healthy"
    return line["reason"] or "no reason" if healthy and not line["probability"] else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--only", default="", help="models with this in their names")
    parser.add_argument("--table", action="store_true", help="of what is there, and no more")
    arguments = parser.parse_args()
    if not arguments.table:
        run(arguments.path, arguments.only)
    table(read(arguments.path))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
