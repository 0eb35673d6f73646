# SPDX-License-Identifier: Apache-2.0
"""``python -m allocators.bpf --include`` prints the folder of the BPF headers."""

import argparse

from allocators.bpf import include


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m allocators.bpf", description=__doc__)
    parser.add_argument(
        "--include", action="store_true", required=True, help="the folder to give to clang as -I"
    )
    parser.parse_args()
    print(include())


if __name__ == "__main__":
    main()
