/* SPDX-License-Identifier: Apache-2.0
 *
 * The lowest part of a Pool: its type, its names, and until when it holds the memory. */
#include "binding.h"

#include <string.h>

struct module_state *state_of(PyTypeObject *type)
{
    for (; type != NULL; type = PyType_GetSlot(type, Py_tp_base)) {
        struct module_state *state = PyType_GetModuleState(type);
        if (state != NULL)
            return state;
        PyErr_Clear();
    }
    PyErr_SetString(PyExc_TypeError, "not a subclass of a type of ssm");
    return NULL;
}

struct pool_object *pool_of(PyTypeObject *type, PyObject *object)
{
    const struct module_state *state = state_of(type);
    if (state != NULL && PyObject_TypeCheck(object, state->pool_type))
        return (struct pool_object *)object;
    return state == NULL ? NULL : (struct pool_object *)PyErr_Format(PyExc_TypeError, "want a Pool, not %R", object);
}

PyObject *name_object(const char *name)
{
    return PyUnicode_DecodeUTF8(name, (Py_ssize_t)strnlen(name, SSM_NAME_SIZE), "replace");
}

void pool_settle(struct pool_object *pool)
{
    if (!pool->closed || pool->exports > 0 || pool->calls > 0 || pool->rings != NULL || pool->core == NULL ||
        ssm_pool_sleepers(pool->core) > 0) /* the end of the object comes after that of every call */
        return;
    struct ssm_pool *core = pool->core;
    pool->core = NULL;
    pool->last_era = *pool->era;
    pool->era = &pool->last_era;
    ssm_pool_destroy(core);
}
