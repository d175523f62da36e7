"""Write scikit-learn's digits, real 8×8 images, as a batch for ``gradprobe probe --data``.

    python benchmarks/digits.py digits.npz

``x`` holds 1,797 samples of 64 features, standardised; ``y`` their labels, 0 to 9.
"""

from __future__ import annotations

import sys

import numpy as np
from sklearn.datasets import load_digits


def main() -> None:
    path = sys.argv[1] if len(sys.argv) > 1 else "digits.npz"
    x, y = load_digits(return_X_y=True)
    # Some pixels never change: the 1e-3 keeps them finite.
    x = (x - x.mean(0)) / (x.std(0) + 1e-3)
    np.savez(path, x=x.astype(np.float32), y=y.astype(np.int64))
    print(f"{path}: {x.shape[0]} samples of {x.shape[1]} features")


if __name__ == "__main__":
    main()
