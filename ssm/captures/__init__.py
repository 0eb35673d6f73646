# SPDX-License-Identifier: Apache-2.0
"""Files of packets, and the headers of packets: what ``ssm record``, ``replay``, ``dump`` and ``demo`` have in common.

::

    errors      what can be wrong with a file
    library     dpkt, or a clear message where it is missing
    capture     a pcap or pcapng file, frame by frame
    admission   which frames fit into a packet, and what happens to those that do not
    flow        what frames of one conversation have in common
    headers     from the bytes of a frame to its flow
    table       a row per flow
    survey      what a file holds, counted
    traffic     files for those who have none
    recording   what ``ssm record`` writes and ``ssm replay`` reads
"""
