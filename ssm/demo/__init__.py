# SPDX-License-Identifier: Apache-2.0
"""The packet lab behind ``ssm demo``: a pipeline of a reader, parsers and a flow table, each its own process.

::

    capture file -> reader =(ring "frames")=> parser 1..N =(ring "parsed")=> flow table

The reader copies each frame into a packet once. From there on only the right to the packet moves: parsers
decode its headers where it lies and write what they found into its headroom, the flow table reads that. When the reader
or a parser is killed, another one takes its place, and nothing is lost or counted twice.

    stages      what the three kinds of processes do
    lab         the pipeline, its run, and what does not agree
    report      the result as text and as JSON
    command     the arguments and the exit status

Capture files, their traffic and what they hold, are read by ssm.captures.
"""
