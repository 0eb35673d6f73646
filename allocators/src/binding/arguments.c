/* SPDX-License-Identifier: Apache-2.0
 *
 * Arguments: integers of any size, and parameters by position or name.
 */
#include "binding.h"

int argument_u64(PyObject *value, uint64_t *out)
{
    int overflow;
    long long small;

    if (!PyLong_Check(value)) {
        PyObject *index = PyNumber_Index(value);
        if (index == NULL)
            return -1;
        int answer = argument_u64(index, out);
        Py_DECREF(index);
        return answer;
    }
    small = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (small == -1 && overflow == 0 && PyErr_Occurred())
        return -1;
    if (overflow == 0) {
        *out = (uint64_t)small;
        return small < 0 ? 1 : 0;
    }
    if (overflow < 0)
        return 1;
    *out = PyLong_AsUnsignedLongLong(value);
    if (*out == UINT64_MAX && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError))
            return -1;
        PyErr_Clear();
        return 2;
    }
    return 0;
}

static int bind_keyword(const char *function, const char *const *names, Py_ssize_t count, PyObject *name,
                        PyObject *value, PyObject **out)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        if (PyUnicode_CompareWithASCIIString(name, names[i]) != 0)
            continue;
        if (out[i] != NULL) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%s'", function, names[i]);
            return -1;
        }
        out[i] = value;
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", function, name);
    return -1;
}

int arguments_bind(const char *function, const char *const *names, Py_ssize_t count, Py_ssize_t required,
                   PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject **out)
{
    Py_ssize_t named = kwnames == NULL ? 0 : PyTuple_Size(kwnames);

    if (nargs > count) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %zd arguments (%zd given)", function, count, nargs);
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++)
        out[i] = i < nargs ? args[i] : NULL;
    for (Py_ssize_t k = 0; k < named; k++)
        if (bind_keyword(function, names, count, PyTuple_GetItem(kwnames, k), args[nargs + k], out) != 0)
            return -1;
    for (Py_ssize_t i = 0; i < required; i++)
        if (out[i] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s() missing required argument '%s'", function, names[i]);
            return -1;
        }
    return 0;
}
