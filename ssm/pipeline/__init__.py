# SPDX-License-Identifier: Apache-2.0
"""Pipelines: functions in processes of their own, with rings between them; see `ssm.Pipeline`.

::

    declared    rings and stages, as they were declared
    crossing    what bridges are told and take
    plan        what is refused, and the sizes that follow
    freight     what goes to workers, pickled
    errors      what is raised
    board       the table in which workers write what they do
    values      how values lie in packets
    waits, inlet, outlet    waiting, taking and sending in a worker
    awaiting    functions that are awaited
    order       the turns of an ordered stage
    worker      what a worker does with packets
    process     its process
    bridges     bridges to other hosts, and their processes
    ledger      what the supervisor writes down of a stage
    books       whether all packets are accounted for
    accounts    pool, rings and ledgers of one run
    report      what a run came to
    bulletin    what a run tells those outside, and how they read it
    teller      what the supervisor puts into it
    pace        rates and shares of the last seconds
    layout      where stages and rings stand in a picture
    signals     Ctrl-C and its kin
    fork_server loaded by the fork server of multiprocessing
    supervisor  starts, watches and ends the workers
    inline      all in one process
    graph       as a flowchart
    pipeline    the class
"""

from ssm.pipeline.declared import RingSpec
from ssm.pipeline.errors import PipelineError, PipelineRefused
from ssm.pipeline.pipeline import Pipeline
from ssm.pipeline.report import BlockReport, BridgeReport, DeadLetter, Report, RingReport, StageReport
from ssm.pipeline.supervisor import Run
from ssm.pipeline.worker import Worker, current_worker

__all__ = [
    "BlockReport",
    "BridgeReport",
    "DeadLetter",
    "Pipeline",
    "PipelineError",
    "PipelineRefused",
    "Report",
    "RingReport",
    "RingSpec",
    "Run",
    "StageReport",
    "Worker",
    "current_worker",
]
