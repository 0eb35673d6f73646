# SPDX-License-Identifier: Apache-2.0
"""The commands of ``ssm``: one module each, see ssm/cli.py."""
