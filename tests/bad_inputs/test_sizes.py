"""Networks that are too large, refused before anything is allocated."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.bad_inputs import HEAD, IMAGE, SEQUENCE, TAIL, cases, refused, told
from helpers.commands import Run


@pytest.fixture
def frugal() -> Iterator[None]:
    """At most 1 GiB more than now: who allocates first and asks later fails."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.usefixtures("frugal")
@cases(
    (
        "size-million-by-million",
        "input: {shape: [1000000]}\nlayers:\n- ▲Linear: {out_features: 1000000}\n",
        "3.6 TiB",
    ),
    (
        "size-inner-layer",
        HEAD
        + "layers:\n- Linear: {out_features: 300000}\n- ▲Linear: {out_features: 2000000}\n- Tanh\n",
        "need 2.2 TiB",
    ),
    (
        "size-largest-by-largest",
        HEAD
        + "layers:\n- Linear: {out_features: 2147483647}\n- ▲Linear: {out_features: 2147483647}",
        "iB",
    ),
    (
        "size-repeated",
        "input: {shape: [1000]}\nlayers:\n- ▲repeat:\n    times: 5000\n    layers:\n"
        "    - Linear: {out_features: 1000}\n",
        "GiB",
    ),
    (
        "size-embedding",
        "input: {shape: [6], tokens: 1000000}\nlayers:\n- ▲Embedding: {embedding_dim: 1000000}\n",
        "3.6 TiB",
    ),
    (
        "size-recurrent",
        "input: {shape: [3, 6]}\nlayers:\n- ▲LSTM: {hidden_size: 1000000}\n",
        "TiB",
    ),
    (
        "size-convolution",
        IMAGE + "layers:\n- ▲Conv2d: {out_channels: 100000, kernel_size: 3000, padding: 3000}\n",
        "TiB",
    ),
    ("size-input", "input: ▲{shape: [2147483647, 2147483647]}\n" + TAIL, "TiB"),
    ("size-batch", "input: ▲{shape: [60000], batch_size: 2000000}\n" + TAIL, "GiB"),
    (
        "size-batch-that-fits-without-its-outputs",
        "input: {shape: [60000], batch_size: 30000}\nlayers:\n- ▲Linear: {out_features: 60000}\n",
        "GiB",
    ),
    (
        "size-upsampled",
        IMAGE
        + "layers:\n- Conv2d: {out_channels: 2, kernel_size: 1}\n"
        + "- ▲Upsample: {scale_factor: 1e4}\n",
        "TiB",
    ),
    (
        "size-pooled-up",
        IMAGE + "layers:\n- Conv2d: {out_channels: 2, kernel_size: 1}\n"
        "- ▲AdaptiveAvgPool2d: {output_size: 1000000}\n",
        "TiB",
    ),
    (
        "size-padded",
        SEQUENCE + "layers:\n- Linear: {out_features: 4}\n- ▲ZeroPad1d: {padding: 2000000000}\n",
        "TiB",
    ),
    (
        "size-feed-forward-inside-a-layer",
        "input: {shape: [20000, 4]}\n"
        "layers:\n- ▲TransformerEncoderLayer: {nhead: 1, dim_feedforward: 500000}\n",
        "TiB",
    ),
    (
        "size-padding-inside-a-layer",
        "input: {shape: [3, 8, 8]}\n"
        "layers:\n- ▲LocalResponseNorm: {size: 100000000}\n"
        "- Flatten\n- Linear: {out_features: 2}\n",
        "iB",
    ),
    (
        "size-layers-inside-a-layer",
        "input: {shape: [100000, 4]}\nlayers:\n- ▲GRU: {hidden_size: 4, num_layers: 300}\n",
        "iB",
    ),
    (
        "size-mask-inside-a-layer",
        "input: {shape: [1000000, 4], batch_size: 1}\n"
        "layers:\n- ▲MultiheadAttention: {num_heads: 1, causal: true}\n",
        "iB",
    ),
)
def test_sizes(probe: Run, file: Path, spec: str, words: tuple[str, ...]) -> None:
    refused(probe(spec), file, spec, *words)


@pytest.mark.usefixtures("frugal")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--width", "1000000"), ("TiB", "--max-memory")),
        (("--width", "30000000"), ("TiB", "--max-memory")),
        (("--width", "2147483647"), ("GiB", "--max-memory")),
        (("--width", "3000", "--depth", "9999"), ("GiB", "--max-memory")),
        (("--batch-size", "1048576", "--width", "1500"), ("GiB", "--max-memory")),
        (("--max-memory", "20KiB"), ("KiB", "--max-memory")),
        (("--max-memory", "1KiB"), ("KiB", "--max-memory")),
        (("--max-parameters", "1000"), ("parameters", "--max-parameters is 1,000")),
        (("--depth", "50001"), ("50,000 layers",)),
        (("--depth", "2147483647"), ("50,000 layers",)),
    ],
    ids=lambda value: "".join(value) if value[0].startswith("--") else None,
)
def test_sizes_of_stacks(run: Run, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    for stack in ("plain", "residual"):
        told(run("probe", stack, *options), *words)
