/* SPDX-License-Identifier: Apache-2.0
 *
 * The core's answers as Python exceptions. Errors that a loop may meet often (exhausted, full, empty, shut down) are
 * raised where they happen, with the facts of that moment, of which ssm/errors.py makes the text when it is read. */
#include "binding.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

PyObject *raise_os(PyObject *class, int errnum, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    PyObject *text = PyUnicode_FromFormatV(format, list);
    va_end(list);
    if (text == NULL)
        return NULL;
    PyObject *arguments = Py_BuildValue("(iN)", errnum, text);
    if (arguments == NULL)
        return NULL;
    PyErr_SetObject(class, arguments);
    Py_DECREF(arguments);
    return NULL;
}

PyObject *raise_closed(const struct pool_object *pool)
{
    return PyErr_Format(PyExc_ValueError, "pool is closed: %R; attach to it again", pool->name);
}

static PyObject *raise_interrupted(const struct pool_object *pool)
{
    if (PyErr_Occurred()) /* a signal handler raised */
        return NULL;
    return raise_closed(pool); /* the other reason to give up, see wait_begin() */
}

static PyObject *raise_errno(const struct pool_object *pool, int errnum)
{
    if (pool->readonly && (errnum == EACCES || errnum == EROFS || errnum == EPERM || errnum == EBADF))
        return raise_os(PyExc_PermissionError, EACCES,
                        "pool %R is attached readonly and cannot be changed; attach without readonly=True", pool->name);
    PyObject *arguments = Py_BuildValue("(isO)", errnum, strerror(errnum), pool->name);
    if (arguments == NULL)
        return NULL;
    PyErr_SetObject(PyExc_OSError, arguments); /* chooses the subclass by errno */
    Py_DECREF(arguments);
    return NULL;
}

PyObject *raise_code(const struct pool_object *pool, int code)
{
    PyObject *const *errors = pool->state->ours;
    int error = code < 0 ? -code : code;
    switch (error) {
    case EINTR:        return raise_interrupted(pool);
    case SSM_E_CLOSED: return raise_closed(pool);
    case SSM_E_STALE:
        return PyErr_Format(errors[ERROR_StaleHandle],
                            "this process does not hold that packet of pool %R (any more); packets are passed through "
                            "rings, and a handle ends with the packet",
                            pool->name);
    case SSM_E_HOLDERS:
        return raise_os(errors[ERROR_HoldersExhausted], EUSERS,
                        "every holder slot of pool %R is taken by a live process or a ring; end some, or create the "
                        "pool with a larger holders=",
                        pool->name);
    case SSM_E_RINGS:
        return raise_os(errors[ERROR_HoldersExhausted], EUSERS,
                        "pool %R has %u rings, the most for its %u holder slots: the other %u are kept for processes; "
                        "end rings that are done with by ring.unlink(), or create the pool with a larger holders=",
                        pool->name, pool->info.rings_max, pool->info.holders,
                        pool->info.holders - pool->info.rings_max);
    case SSM_E_METADATA:
        return raise_os(
            errors[ERROR_MetadataExhausted], ENOSPC,
            "pool %R has no room left for another ring of that capacity; use a smaller capacity=, or create "
            "the pool with a larger metadata= (a ring takes 8 bytes for each packet of its capacity, rounded up "
            "to a power of two, and with redeliver= 24 bytes for each block of the pool)",
            pool->name);
    case SSM_E_LAYOUT:
        return PyErr_Format(errors[ERROR_LayoutMismatch],
                            "%R is not an ssm pool, or one of another layout version; use the same release of ssm on "
                            "both sides, or remove it with ssm.Pool.unlink()",
                            pool->name);
    case SSM_E_CORRUPT:
        return PyErr_Format(errors[ERROR_CorruptionError],
                            "pool %R contradicts itself: something wrote over its metadata; pool.check() says what, "
                            "create it anew",
                            pool->name);
    case SSM_E_ABANDONED:
        return raise_os(errors[ERROR_PoolAbandoned], ENOENT,
                        "pool %R is over: its last process has left it; create it anew", pool->name);
    case SSM_E_LOCKS_GONE:
        return raise_os(
            PyExc_OSError, ESTALE,
            "pool %R: others may read it, so its locks are on a file of their own in /dev/shm (.ssm-locks-...), and "
            "that file was removed: no process can attach any more; unlink the pool and create it again",
            pool->name);
    case SSM_E_NO_SHM:
        return raise_os(
            PyExc_OSError, ENOSYS,
            "pool %R: there is no directory /dev/shm, where POSIX shared memory is; mount it (mkdir /dev/shm && "
            "mount -t tmpfs tmpfs /dev/shm), or give the container one",
            pool->name);
    case SSM_E_NO_PROC:
        return raise_os(
            PyExc_OSError, ENOSYS,
            "pool %R: /proc is not there, or shows another PID namespace; it takes /proc/self/fd to open the pool "
            "for this process alone: mount it (mount -t proc proc /proc)",
            pool->name);
    case SSM_E_NO_LOCKS:
        return raise_os(
            PyExc_OSError, ENOSYS,
            "pool %R: this kernel has no open-file-description locks (fcntl with F_OFD_SETLK), by which a pool knows "
            "which processes live; it takes Linux 3.15, or a sandbox that has them",
            pool->name);
    case ENOMEM: return PyErr_NoMemory();
    case ETIMEDOUT:
        return raise_os(
            PyExc_TimeoutError, ETIMEDOUT,
            "pool %R: a live process has kept a lock of it for ten seconds; one that is stopped (SIGSTOP) does: "
            "continue it or end it",
            pool->name);
    default:
        if (error < SSM_E_EXHAUSTED)
            return raise_errno(pool, error);
        return PyErr_Format(errors[ERROR_SSMError], "pool %R: %s", pool->name, ssm_strerror(error));
    }
}
