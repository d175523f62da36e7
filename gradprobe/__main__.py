import sys

if not sys.flags.safe_path:
    del sys.path[0]  # the working directory, whose torch.py is not torch

from gradprobe.cli.main import main

main()
