# SPDX-License-Identifier: Apache-2.0
"""CPython's own tests of queues, with ssm.Queue put in the place of theirs.

They come with the interpreter, in the package `test` (Debian: libpython3.x-testsuite). Those that cannot apply are
listed with the reason.
"""

import multiprocessing
import unittest
import unittest.mock

import pytest

import ssm

theirs = pytest.importorskip("test._test_multiprocessing", reason="CPython's package `test` is not installed")
queues = pytest.importorskip("test.test_queue", reason="CPython's package `test` is not installed")

NOT_FOR_US = {
    "test_queue_feeder_donot_stop_onexc": "there is no feeder: what cannot be pickled raises in put()",
    "test_queue_feeder_on_queue_feeder_error": "there is no feeder, and no hook for its errors",
    "test_negative_timeout_raises_exception": "of queue.Queue; multiprocessing.Queue takes it for 0, and so do we",
    "test_shrinking_queue": "assigns to maxsize, which multiprocessing.Queue does not have",
}


def without_those_not_for_us(cls):
    for name, reason in NOT_FOR_US.items():
        if hasattr(cls, name):
            setattr(cls, name, unittest.skip(reason)(getattr(cls, name)))
    return cls


class Processes(theirs._TestQueue, theirs.ProcessesMixin):
    """As install_tests_in_module_dict() of CPython puts them together."""

    Queue = staticmethod(ssm.Queue)
    JoinableQueue = staticmethod(ssm.JoinableQueue)
    method = "fork"

    def setUp(self):
        super().setUp()
        before = multiprocessing.get_start_method(allow_none=True)
        self.addCleanup(multiprocessing.set_start_method, before, force=True)
        multiprocessing.set_start_method(self.method, force=True)
        for name in ("Queue", "JoinableQueue"):  # some of the tests take theirs from the module
            patch = unittest.mock.patch.object(multiprocessing, name, getattr(ssm, name))
            patch.start()
            self.addCleanup(patch.stop)


@without_those_not_for_us
class TestFork(Processes, unittest.TestCase):
    pass


@without_those_not_for_us
class TestSpawn(Processes, unittest.TestCase):
    method = "spawn"


class Module:
    """What the tests of queue.Queue take for the module."""

    Queue = staticmethod(ssm.Queue)
    Empty, Full = theirs.pyqueue.Empty, theirs.pyqueue.Full
    ShutDown = getattr(theirs.pyqueue, "ShutDown", None)


@without_those_not_for_us
class TestThreads(queues.BaseQueueTestMixin, unittest.TestCase):
    queue = Module

    def setUp(self):
        self.type2test = ssm.Queue
        super().setUp()


@without_those_not_for_us
class TestSimple(queues.BaseSimpleQueueTest, unittest.TestCase):
    queue = Module

    def setUp(self):
        self.type2test = ssm.SimpleQueue
        super().setUp()

    def test_references(self):
        """As theirs, with a class that can be pickled."""
        self.q.put(Weak())
        gone = theirs.weakref.ref(self.q.get())
        assert gone() is None


class Weak:
    pass
