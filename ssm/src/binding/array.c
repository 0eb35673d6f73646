/* SPDX-License-Identifier: Apache-2.0
 *
 * The only user of numpy's C API, which is imported when the first array is asked for. numpy cannot be loaded into a
 * sub-interpreter with a GIL of its own: there these functions raise ImportError, even after another interpreter of
 * the process has filled the API table. */
#include "binding.h"

#include <string.h>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION    NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>

static int need_numpy(struct module_state *state)
{
    if (state->numpy_ready)
        return 0;
    PyObject *numpy = PyObject_CallNoArgs(state->ours[FUNCTION_import_numpy]); /* in this interpreter */
    if (numpy == NULL)
        return -1;
    Py_DECREF(numpy);
    if (PyArray_ImportNumPyAPI() < 0)
        return -1;
    state->numpy_ready = true;
    return 0;
}

/* ---- a view of a packet --------------------------------------------------------------------------- */

struct dimensions {
    int      count;
    npy_intp sizes[NPY_MAXDIMS];
};

/* The product of the sizes, -1 left out; or -1 with an exception set. *open_out: the position of the -1, or -1. */
static npy_intp multiply(const struct dimensions *d, PyObject *shape, int *open_out)
{
    npy_intp product = 1;
    *open_out = -1;
    for (int i = 0; i < d->count; i++) {
        if (d->sizes[i] == -1 && *open_out < 0) {
            *open_out = i;
        } else if (d->sizes[i] < 0) {
            PyErr_Format(PyExc_ValueError, "shape %R: sizes are 0 or more, and one may be -1", shape);
            return -1;
        } else if (__builtin_mul_overflow(product, d->sizes[i], &product)) {
            PyErr_Format(PyExc_ValueError, "shape %R is too large", shape);
            return -1;
        }
    }
    return product;
}

static int parse_shape(PyObject *shape, struct dimensions *d)
{
    d->count = 1;
    if (PyIndex_Check(shape)) {
        d->sizes[0] = PyNumber_AsSsize_t(shape, PyExc_OverflowError);
        return d->sizes[0] == -1 && PyErr_Occurred() ? -1 : 0;
    }
    Py_ssize_t count = PySequence_Size(shape);
    if (count < 0 || count > NPY_MAXARGS) {
        if (count >= 0)
            PyErr_Format(PyExc_ValueError, "shape has %zd dimensions, numpy takes up to %d", count, NPY_MAXARGS);
        return -1;
    }
    d->count = (int)count;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *size = PySequence_GetItem(shape, i);
        if (size == NULL)
            return -1;
        d->sizes[i] = PyNumber_AsSsize_t(size, PyExc_OverflowError);
        Py_DECREF(size);
        if (d->sizes[i] == -1 && PyErr_Occurred())
            return -1;
    }
    return 0;
}

/* Fits the shape to the payload: fills in a -1, or raises. */
static int fit_shape(PyObject *shape, struct dimensions *d, npy_intp nbytes, PyArray_Descr *descr)
{
    npy_intp item_bytes = PyDataType_ELSIZE(descr);
    if (nbytes % item_bytes != 0) {
        PyErr_Format(PyExc_ValueError,
                     "the packet's %zd bytes do not divide into items of %zd (dtype %S); truncate() it first",
                     (Py_ssize_t)nbytes, (Py_ssize_t)item_bytes, OBJECT(descr));
        return -1;
    }
    npy_intp items = nbytes / item_bytes;
    if (shape == NULL) {
        d->count = 1;
        d->sizes[0] = items;
        return 0;
    }
    int open;
    npy_intp product = multiply(d, shape, &open);
    if (product < 0)
        return -1;
    if (open >= 0 && product > 0 && items % product == 0) {
        d->sizes[open] = items / product;
        return 0;
    }
    if (open < 0 && product == items)
        return 0;
    PyErr_Format(PyExc_ValueError, "the packet's %zd items of %zd bytes (dtype %S) do not fit shape %R",
                 (Py_ssize_t)items, (Py_ssize_t)item_bytes, OBJECT(descr), shape);
    return -1;
}

static PyArray_Descr *parse_dtype(PyObject *dtype)
{
    PyArray_Descr *descr = NULL;
    if (dtype == NULL)
        return PyArray_DescrFromType(NPY_UINT8);
    if (!PyArray_DescrConverter(dtype, &descr))
        return NULL;
    if (!PyDataType_REFCHK(descr) && PyDataType_ELSIZE(descr) > 0)
        return descr;
    PyErr_Format(PyExc_TypeError, "dtype %S has no place in shared memory: %s", OBJECT(descr),
                 PyDataType_REFCHK(descr) ? "Python objects belong to one process" : "its items have no size");
    Py_DECREF(OBJECT(descr));
    return NULL;
}

/* Takes over `descr` and `span`. */
static PyObject *array_over_span(struct span_object *span, PyArray_Descr *descr, const struct dimensions *d)
{
    PyObject *array = PyArray_NewFromDescr(&PyArray_Type, descr, d->count, d->sizes, NULL, span->data,
                                           NPY_ARRAY_DEFAULT, NULL);
    if (array == NULL) {
        Py_DECREF(OBJECT(span));
        return NULL;
    }
    PyArray_UpdateFlags((PyArrayObject *)array, NPY_ARRAY_ALIGNED);
    if (span->packet->readonly)
        PyArray_CLEARFLAGS((PyArrayObject *)array, NPY_ARRAY_WRITEABLE);
    if (PyArray_SetBaseObject((PyArrayObject *)array, OBJECT(span)) == 0)
        return array;
    Py_DECREF(array);
    return NULL;
}

PyObject *array_of_packet(struct packet_object *packet, PyObject *dtype, PyObject *shape)
{
    struct dimensions d;
    if (need_numpy(packet->state) < 0 || (shape != NULL && parse_shape(shape, &d) < 0))
        return NULL;
    PyArray_Descr *descr = parse_dtype(dtype);
    if (descr == NULL)
        return NULL;
    struct span_object *span = span_new(packet); /* from here on the bytes stay where they are */
    if (span != NULL && fit_shape(shape, &d, span->length, descr) == 0)
        return array_over_span(span, descr, &d);
    Py_XDECREF(OBJECT(span));
    Py_DECREF(OBJECT(descr));
    return NULL;
}

/* ---- columns and rows of a batch -------------------------------------------------------------------- */

PyObject *array_over_u64(struct module_state *state, PyObject *owner, const uint64_t *values, uint32_t count)
{
    npy_intp size = count;
    if (need_numpy(state) < 0)
        return NULL;
    PyObject *array = PyArray_NewFromDescr(&PyArray_Type, PyArray_DescrFromType(NPY_UINT64), 1, &size, NULL,
                                           (void *)values, NPY_ARRAY_CARRAY_RO, NULL);
    if (array == NULL)
        return NULL;
    Py_INCREF(owner);
    if (PyArray_SetBaseObject((PyArrayObject *)array, owner) == 0)
        return array;
    Py_DECREF(array);
    return NULL;
}

PyObject *array_new_u64(struct module_state *state, uint32_t count, uint64_t **values_out)
{
    npy_intp size = count;
    if (need_numpy(state) < 0)
        return NULL;
    PyObject *array = PyArray_SimpleNew(1, &size, NPY_UINT64);
    if (array == NULL)
        return NULL;
    *values_out = PyArray_DATA((PyArrayObject *)array);
    return array;
}

PyObject *array_new_bool(struct module_state *state, uint32_t count, uint8_t **values_out)
{
    npy_intp size = count;
    if (need_numpy(state) < 0)
        return NULL;
    PyObject *array = PyArray_SimpleNew(1, &size, NPY_BOOL);
    if (array != NULL)
        *values_out = PyArray_DATA((PyArrayObject *)array);
    return array;
}

PyObject *array_new_rows(struct module_state *state, uint32_t rows, uint64_t row_bytes, uint8_t **bytes_out)
{
    npy_intp sizes[2] = {rows, (npy_intp)row_bytes};
    if (need_numpy(state) < 0)
        return NULL;
    PyObject *array = PyArray_SimpleNew(2, sizes, NPY_UINT8);
    if (array != NULL)
        *bytes_out = PyArray_DATA((PyArrayObject *)array);
    return array;
}

static int raise_negative(const char *what, PyObject *value)
{
    PyErr_Format(PyExc_OverflowError, "%s are integers in 0 .. 2**64 - 1, not %R", what, value);
    return -1;
}

static int read_scalar(PyObject *value, const char *what, uint32_t count, uint64_t *values_out)
{
    uint64_t number;
    int range = argument_u64(value, &number);
    if (range != 0)
        return range < 0 ? -1 : raise_negative(what, value);
    for (uint32_t i = 0; i < count; i++)
        values_out[i] = number;
    return 0;
}

/* `array` is 1-D, of integers. */
static int copy_integers(PyArrayObject *array, const char *what, uint64_t *values_out)
{
    bool is_signed = PyArray_ISSIGNED(array);
    PyArrayObject *plain = (PyArrayObject *)PyArray_FromArray(
        array, PyArray_DescrFromType(is_signed ? NPY_INT64 : NPY_UINT64), NPY_ARRAY_CARRAY_RO | NPY_ARRAY_FORCECAST);
    if (plain == NULL)
        return -1;
    int result = 0;
    npy_intp count = PyArray_DIM(plain, 0);
    memcpy(values_out, PyArray_DATA(plain), (size_t)count * sizeof(*values_out));
    for (npy_intp i = 0; result == 0 && is_signed && i < count; i++)
        if ((int64_t)values_out[i] < 0)
            result = raise_negative(what, OBJECT(array));
    Py_DECREF(OBJECT(plain));
    return result;
}

/* A list or tuple, number by number: numpy would make floats of [1, 2**63]. */
static int read_items(PyObject *items, const char *what, uint32_t count, uint64_t *values_out)
{
    if (PyTuple_Size(items) != (Py_ssize_t)count) {
        PyErr_Format(PyExc_ValueError, "%s need one number, or one for each of %u packets, not %zd", what, count,
                     PyTuple_Size(items));
        return -1;
    }
    for (uint32_t i = 0; i < count; i++) {
        PyObject *item = PyTuple_GetItem(items, i); /* borrowed */
        int range = argument_u64(item, &values_out[i]);
        if (range != 0)
            return range < 0 ? -1 : raise_negative(what, item);
    }
    return 0;
}

static int read_array(PyArrayObject *array, PyObject *value, const char *what, uint32_t count, uint64_t *values_out)
{
    if (!PyArray_ISINTEGER(array))
        PyErr_Format(PyExc_TypeError, "%s are integers, not %S", what, OBJECT(PyArray_DESCR(array)));
    else if (PyArray_NDIM(array) == 0)
        return read_scalar(value, what, count, values_out);
    else if (PyArray_NDIM(array) != 1 || PyArray_DIM(array, 0) != (npy_intp)count)
        PyErr_Format(PyExc_ValueError,
                     "%s need one number, or one for each of %u packets, not an array of %d dimension%s and %zd items",
                     what, count, PyArray_NDIM(array), PyArray_NDIM(array) == 1 ? "" : "s",
                     (Py_ssize_t)PyArray_SIZE(array));
    else
        return copy_integers(array, what, values_out);
    return -1;
}

int array_read_u64(struct module_state *state, PyObject *value, const char *what, uint32_t count, uint64_t *values_out)
{
    if (PyLong_Check(value))
        return read_scalar(value, what, count, values_out);
    if (need_numpy(state) < 0)
        return -1;
    if (PyArray_CheckAnyScalar(value) || PyArray_Check(value)) {
        PyArrayObject *array = (PyArrayObject *)PyArray_FROM_O(value);
        int result = array != NULL ? read_array(array, value, what, count, values_out) : -1;
        Py_XDECREF(OBJECT(array));
        return result;
    }
    if (PyIndex_Check(value))
        return read_scalar(value, what, count, values_out);
    PyObject *items = PySequence_Tuple(value);
    int result = items != NULL ? read_items(items, what, count, values_out) : -1;
    Py_XDECREF(items);
    return result;
}
