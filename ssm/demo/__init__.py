# SPDX-License-Identifier: Apache-2.0
"""The packet lab behind ``ssm demo``: a reader, N parsers and a flow table, each its own process.

::

    capture file -> reader =(ring "frames")=> parser 1..N =(ring "parsed")=> flow table

The reader copies each frame into a packet once. From there on only the right to the packet moves: parsers
decode its headers where it lies and write what they found into its headroom, the flow table reads that. The ring
"frames" redelivers: when a parser is killed, another one takes its place, and nothing is lost or counted twice.

    errors      what can go wrong that the user can mend
    progress    a bar on a terminal
    survey      what the file holds, counted before anything runs
    mark        what stands in front of a frame on its way
    source      where frames come from when no file is given
    table       the flow table
    stages      the three kinds of processes
    settings    the sizes and rules of a run
    crew        starts processes, watches them, ends them in any case
    verdict     what does not agree
    lab         the run: pool, rings, crew
    report      the result as text and as JSON
    command     the arguments and the exit status

Capture files and headers are read by ssm.captures.
"""
