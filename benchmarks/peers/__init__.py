# SPDX-License-Identifier: Apache-2.0
"""How do the neighbours compare? The same packets, round trips and calls, asked of ours and of others."""
