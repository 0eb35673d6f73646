# SPDX-License-Identifier: Apache-2.0
"""The RMID allocator for BPF programs in C: where ``rmid_allocator.bpf.h`` and ``rmid_allocator.bpf.c`` are.

``clang -target bpf -I"$(python -m allocators.bpf --include)" ...`` compiles a program that includes the header.
"""

from pathlib import Path

__all__ = ["include"]


def include() -> Path:
    """Return the folder to give to a compiler as ``-I``.

    Returns
    -------
    Path
        It holds ``rmid_allocator.bpf.h``, ``rmid_allocator.bpf.c``, and ``rmid.h``, which they include.
    """
    return Path(__file__).resolve().parent
