/* SPDX-License-Identifier: Apache-2.0
 *
 * Services as Python objects: what their files share. service.c has the base class, the directory, and ranges;
 * service_numbers.c has ids, pids, rmids, and Pid; service_semaphore.c semaphores; service_board.c boards.
 *
 * A service object is immutable once it is open. Its calls may wait for a lock that another process has, without the
 * GIL; service_begin() and service_end() keep the pool's memory meanwhile. Nothing is to be closed: the core's struct
 * ssm_service is private memory, and is not looked at once the pool is closed. */
#ifndef SSM_BINDING_SERVICE_H
#define SSM_BINDING_SERVICE_H

#include "binding.h"

struct service_object {
    PyObject_HEAD
    struct module_state       *state;
    struct pool_object        *pool;
    struct ssm_service        *core;
    PyObject                  *name;
    struct ssm_service_options options;
};

static inline bool service_begin(struct service_object *service, struct wait_scope *scope)
{
    if (wait_begin(scope, service->pool, NULL))
        return true;
    raise_closed(service->pool);
    return false;
}

static inline void service_end(struct wait_scope *scope)
{
    wait_end(scope);
}

/* What is not an error of an allocator: closed, interrupted, corrupt. NULL with an exception set. */
PyObject *service_raise(const struct service_object *service, int code);
/* An exception of allocators/errors.py. */
PyObject *service_raise_error(const struct service_object *service, enum ours class, const char *format, ...);

/* Types: one for each kind, and those that belong to one of them. */
extern PyType_Spec service_spec, ids_spec, pids_spec, rmids_spec, addresses_spec, semaphore_spec, board_spec, pid_spec;

#endif
