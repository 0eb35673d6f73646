# SPDX-License-Identifier: Apache-2.0
"""What is published once and comes to many: ours beside iceoryx2's, and beside a queue for each consumer."""
