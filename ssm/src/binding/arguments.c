/* SPDX-License-Identifier: Apache-2.0
 *
 * Vectorcall arguments, parsed by hand: PyArg_Parse costs more than an allocation from the pool. */
#include "binding.h"

#include <math.h>

#define NS_PER_SECOND 1000000000
#define SECONDS_MAX   4000000000.0 /* longer is for ever: the clock's nanoseconds end after 292 years */

static int find_parameter(const struct module_state *state, const struct parameters *p, PyObject *name)
{
    for (int i = 0; i < p->count; i++)
        if (state->keywords[p->names[i]] == name)
            return i;
    for (int i = 0; i < p->count; i++) { /* not interned, or in another interpreter's table */
        int equal = PyUnicode_Compare(state->keywords[p->names[i]], name);
        if (equal == 0)
            return i;
        if (equal == -1 && PyErr_Occurred())
            return -1;
    }
    PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument %R", p->function, name);
    return -1;
}

static int bind_keywords(const struct module_state *state, const struct parameters *p, PyObject *const *values,
                         PyObject *kwnames, PyObject **out)
{
    Py_ssize_t given = PyTuple_Size(kwnames);
    for (Py_ssize_t k = 0; k < given; k++) {
        PyObject *name = PyTuple_GetItem(kwnames, k); /* borrowed */
        int i = find_parameter(state, p, name);
        if (i < 0)
            return -1;
        if (out[i] != NULL) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument %R", p->function, name);
            return -1;
        }
        out[i] = values[k];
    }
    return 0;
}

int arguments_bind_slowly(const struct module_state *state, const struct parameters *p, PyObject *const *args,
                          Py_ssize_t nargs, PyObject *kwnames, PyObject **out)
{
    if (nargs > p->positional) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %d positional argument%s (%zd given)", p->function,
                     p->positional, p->positional == 1 ? "" : "s", nargs);
        return -1;
    }
    for (int i = 0; i < p->count; i++)
        out[i] = i < nargs ? args[i] : NULL;
    if (kwnames != NULL && bind_keywords(state, p, args + nargs, kwnames, out) < 0)
        return -1;
    for (int i = 0; i < p->required; i++) {
        if (out[i] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s() missing required argument %R", p->function,
                         state->keywords[p->names[i]]);
            return -1;
        }
    }
    return 0;
}

int arguments_are(const char *function, Py_ssize_t nargs, Py_ssize_t count)
{
    if (nargs == count)
        return 0;
    PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments by position, not %zd", function, count, nargs);
    return -1;
}

static int raise_timeout(PyObject *value)
{
    PyErr_Format(PyExc_ValueError,
                 "'timeout' must be a non-negative number of seconds, or None to wait for ever; not %R", value);
    return -1;
}

static int whole_seconds(PyObject *value, int64_t *ns_out)
{
    int overflow;
    long long seconds = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow < 0 || (overflow == 0 && seconds < 0))
        return raise_timeout(value);
    *ns_out = overflow > 0 || (double)seconds > SECONDS_MAX ? SSM_FOREVER : (int64_t)seconds * NS_PER_SECOND;
    return 0;
}

int argument_timeout_given(PyObject *value, int64_t *ns_out)
{
    if (value == Py_None) {
        *ns_out = SSM_FOREVER;
        return 0;
    }
    if (PyLong_Check(value))
        return whole_seconds(value, ns_out);
    double seconds = PyFloat_AsDouble(value);
    if (seconds == -1.0 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_TypeError, "'timeout' must be a number of seconds, or None to wait for ever; not %R",
                         value);
        return -1;
    }
    if (!(seconds >= 0)) /* negative, or not a number */
        return raise_timeout(value);
    *ns_out = seconds > SECONDS_MAX ? SSM_FOREVER : (int64_t)ceil(seconds * NS_PER_SECOND);
    return 0;
}

int argument_flag_given(PyObject *value, bool *flag_out)
{
    int truth = PyObject_IsTrue(value);
    if (truth < 0)
        return -1;
    *flag_out = truth != 0;
    return 0;
}

int argument_u64(PyObject *value, uint64_t *out)
{
    int overflow;
    if (PyLong_CheckExact(value)) { /* nearly always */
        long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
        *out = (uint64_t)number;
        if (number >= 0 && overflow == 0)
            return 0;
    }
    PyObject *index = PyNumber_Index(value); /* numpy integers, too; a float is a TypeError */
    if (index == NULL)
        return -1;
    long long small = PyLong_AsLongLongAndOverflow(index, &overflow);
    int result = overflow < 0 || (overflow == 0 && small < 0) ? 1 : 0;
    *out = (uint64_t)small;
    if (overflow > 0) {
        *out = PyLong_AsUnsignedLongLong(index);
        if (*out == UINT64_MAX && PyErr_Occurred()) {
            PyErr_Clear();
            result = 2;
        }
    }
    Py_DECREF(index);
    return result;
}
