/* SPDX-License-Identifier: Apache-2.0
 *
 * What an allocator has handed out, as plain Python: lists, numpy arrays, and the dicts of to_dict() and from_dict(),
 * which are also what is pickled. A dict says what it is and in which version; what it says is checked like any other
 * argument, it may come from a file.
 */
#include "binding.h"

#include <string.h>

#define VERSION 1

/* ---- numbers ---- */

PyObject *numbers_list(struct numbers *n)
{
    PyObject *list = n->at == NULL ? PyErr_NoMemory() : PyList_New((Py_ssize_t)n->count);

    for (uint64_t i = 0; list != NULL && i < n->count; i++) {
        PyObject *number = PyLong_FromUnsignedLong(n->at[i]);
        if (number == NULL)
            Py_CLEAR(list);
        else
            PyList_SetItem(list, (Py_ssize_t)i, number);
    }
    PyMem_Free(n->at);
    return list;
}

PyObject *numbers_iterate(PyObject *list)
{
    PyObject *iterator = list == NULL ? NULL : PyObject_GetIter(list);

    Py_XDECREF(list);
    return iterator;
}

static PyObject *run_new(uint32_t first, uint32_t last)
{
    return Py_BuildValue("[kk]", (unsigned long)first, (unsigned long)last);
}

PyObject *numbers_runs(struct numbers *n)
{
    PyObject *list = n->at == NULL ? PyErr_NoMemory() : PyList_New(0);

    for (uint64_t i = 0, end; list != NULL && i < n->count; i = end) {
        for (end = i + 1; end < n->count && n->at[end] - n->at[i] == end - i;)
            end++;
        PyObject *run = run_new(n->at[i], n->at[end - 1]);
        if (run == NULL || PyList_Append(list, run) != 0)
            Py_CLEAR(list);
        Py_XDECREF(run);
    }
    PyMem_Free(n->at);
    return list;
}

PyObject *numpy_of(const void *at, uint64_t bytes, const char *dtype, int columns)
{
    PyObject *copy = PyBytes_FromStringAndSize(at, (Py_ssize_t)bytes);
    PyObject *numpy = copy == NULL ? NULL : PyImport_ImportModule("numpy");
    PyObject *array = numpy == NULL ? NULL : PyObject_CallMethod(numpy, "frombuffer", "Os", copy, dtype);

    Py_XDECREF(numpy);
    Py_XDECREF(copy);
    if (array != NULL && columns > 1) {
        PyObject *table = PyObject_CallMethod(array, "reshape", "ii", -1, columns);
        Py_DECREF(array);
        array = table;
    }
    return array;
}

PyObject *numbers_numpy(struct numbers *n)
{
    PyObject *array = n->at == NULL ? PyErr_NoMemory() : numpy_of(n->at, n->count * sizeof *n->at, "u4", 1);

    PyMem_Free(n->at);
    return array;
}

/* ---- dicts ---- */

PyObject *contents_new(const char *kind)
{
    return Py_BuildValue("{s:s,s:i}", "kind", kind, "version", VERSION);
}

int contents_set(PyObject *contents, const char *key, PyObject *value)
{
    int failed = value == NULL ? -1 : PyDict_SetItemString(contents, key, value);

    Py_XDECREF(value);
    return failed;
}

/* A borrowed reference; NULL with a ValueError set. */
static PyObject *contents_get(PyObject *contents, const char *key)
{
    PyObject *value = PyDict_GetItemString(contents, key);

    if (value == NULL)
        PyErr_Format(PyExc_ValueError, "from_dict(): there is no %s in it: want what to_dict() gave", key);
    return value;
}

bool contents_are(PyObject *contents, const char *kind)
{
    uint64_t version;

    if (!PyDict_Check(contents)) {
        PyErr_Format(PyExc_TypeError, "from_dict() wants the dict that to_dict() gave, not %R", contents);
        return false;
    }
    PyObject *there = contents_get(contents, "kind");
    if (there == NULL)
        return false;
    if (!PyUnicode_Check(there) || PyUnicode_CompareWithASCIIString(there, kind) != 0) {
        PyErr_Format(PyExc_ValueError, "from_dict(): it is of kind %R, not '%s'", there, kind);
        return false;
    }
    if (contents_u64(contents, "version", UINT64_MAX, &version) != 0)
        return false;
    if (version != VERSION)
        PyErr_Format(PyExc_ValueError,
                     "from_dict(): version %llu of kind '%s' is not known here, only %d: a newer release wrote it",
                     (unsigned long long)version, kind, VERSION);
    return version == VERSION;
}

int contents_u64(PyObject *contents, const char *key, uint64_t most, uint64_t *out)
{
    PyObject *value = contents_get(contents, key);
    int is = value == NULL ? -1 : argument_u64(value, out);

    if (is > 0 || (is == 0 && *out > most))
        PyErr_Format(PyExc_ValueError, "from_dict(): %s %S does not lie within 0..%llu", key, value,
                     (unsigned long long)most);
    return is == 0 && *out <= most ? 0 : -1;
}

PyObject *contents_rows(PyObject *contents, const char *key)
{
    PyObject *value = contents_get(contents, key);

    return value == NULL ? NULL : PySequence_List(value);
}

int contents_row(PyObject *rows, Py_ssize_t index, int columns, uint64_t *out)
{
    PyObject *row = PySequence_List(PyList_GetItem(rows, index));
    int is = row == NULL ? -1 : PyList_Size(row) == columns ? 0 : 1;

    for (int i = 0; is == 0 && i < columns; i++)
        is = argument_u64(PyList_GetItem(row, i), &out[i]);
    if (is > 0)
        PyErr_Format(PyExc_ValueError, "from_dict(): row %zd, %S, is not %d numbers of 0..2**64 - 1", index, row,
                     columns);
    Py_XDECREF(row);
    return is == 0 ? 0 : -1;
}

PyObject *contents_contradict(const char *kind, const char *why)
{
    return PyErr_Format(PyExc_ValueError, "from_dict(): no %s is like that: %s", kind, why);
}

/* ---- pickling ---- */

PyObject *contents_reduce(PyObject *object, PyObject *contents, PyObject *more)
{
    PyObject *from = contents == NULL ? NULL : PyObject_GetAttrString((PyObject *)Py_TYPE(object), "from_dict");

    if (from == NULL) {
        Py_XDECREF(contents);
        return NULL;
    }
    return more == NULL ? Py_BuildValue("N(N)", from, contents) : Py_BuildValue("N(NO)", from, contents, more);
}
