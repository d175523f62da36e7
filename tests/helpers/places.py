"""Where the files stand that tests read."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
MODEL_SPECS = ROOT / "model_specs"
GOLDEN = TESTS / "golden"
SPECS = TESTS / "specs"  # good and bad ones
CONFIGS = TESTS / "architectures"  # Hugging Face's config.json, a folder each
