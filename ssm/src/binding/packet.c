/* SPDX-License-Identifier: Apache-2.0
 *
 * ssm.Packet: one reference to a packet, as a writable buffer. And Span, a pinned stretch of one: what partial
 * memoryviews and numpy arrays keep alive.
 *
 * The window is read from the block each time: another process that holds the packet as well may have moved it.
 * A view covers the window as it was when it was made. */
#include "binding.h"

#include <stdio.h>
#include <string.h>

/* ---- life ---------------------------------------------------------------------------------------- */

static void packet_dealloc(struct packet_object *self)
{
    PyTypeObject *type = Py_TYPE(OBJECT(self));
    struct pool_object *pool = self->pool;
    POOL_LOCK(pool)
    if (packet_is_live(self) &&
        !deliveries_stay(pool, &self->handle, 1, self->delivery)) /* no views: they hold the object */
        ssm_free_of(pool->core, self->handle, self->delivery, false);
    POOL_UNLOCK()
    packet_keep_spare(self);
    Py_DECREF(OBJECT(pool));
    Py_DECREF(OBJECT(type));
}

static int packet_getbuffer(struct packet_object *self, Py_buffer *view, int flags)
{
    struct ssm_packet window;
    view->obj = NULL;
    if (self->readonly && flags & PyBUF_WRITABLE)
        return packet_raise_readonly(PyExc_BufferError);
    if (packet_export(self, &window) < 0)
        return -1;
    if (PyBuffer_FillInfo(view, OBJECT(self), window.data, (Py_ssize_t)window.length, self->readonly, flags) == 0)
        return 0;
    packet_unexport(self);
    return -1;
}

static void packet_releasebuffer(struct packet_object *self, Py_buffer *view)
{
    (void)view;
    packet_unexport(self);
}

/* ---- window -------------------------------------------------------------------------------------- */

typedef int (*move_edge)(struct ssm_pool *pool, uint64_t handle, uint64_t bytes, uint8_t **bytes_out);

static PyObject *raise_room(const char *method, uint64_t bytes, const struct ssm_packet *window)
{
    const char *what = "bytes of data";
    uint64_t room = window->length;
    if (strcmp(method, "prepend") == 0)
        what = "bytes of headroom", room = window->headroom;
    else if (strcmp(method, "append") == 0)
        what = "bytes of tailroom", room = window->tailroom;
    char text[200];
    snprintf(text, sizeof(text), "%s(%llu): the packet has %llu %s; nothing was changed%s", method,
             (unsigned long long)bytes, (unsigned long long)room, what,
             method[0] == 't' ? "" : ". Take a larger size, or create the pool with more headroom= and tailroom=");
    PyErr_SetString(PyExc_ValueError, text);
    return NULL;
}

static int parse_bytes(const char *method, PyObject *value, uint64_t *bytes_out)
{
    int range = argument_u64(value, bytes_out);
    if (range == 2)
        *bytes_out = UINT64_MAX; /* too much for any packet */
    if (range != 1)
        return range < 0 ? -1 : 0;
    PyErr_Format(PyExc_ValueError, "%s() takes a number of bytes, 0 or more, not %S", method, value);
    return -1;
}

/* The span is made first, over the window as it was, for it pins the block; then it is set to the bytes that were
 * added or removed. */
static PyObject *packet_move(struct packet_object *self, PyObject *value, const char *method, move_edge move)
{
    uint64_t bytes;
    uint8_t *begin = NULL;
    struct ssm_packet window = {0};
    if (parse_bytes(method, value, &bytes) < 0)
        return NULL;
    struct span_object *span = span_new(self);
    if (span == NULL)
        return NULL;
    int result = move(self->pool->core, self->handle, bytes, &begin);
    PyObject *view = NULL;
    if (result == 0) {
        span->data = begin;
        span->length = (Py_ssize_t)bytes;
        view = PyMemoryView_FromObject(OBJECT(span));
    } else if (result == -SSM_E_ROOM && packet_open(self, &window) == 0) {
        packet_shut(self);
        raise_room(method, bytes, &window);
    } else if (result != -SSM_E_ROOM) {
        packet_raise(self, result);
    }
    Py_DECREF(OBJECT(span));
    return view;
}

PyDoc_STRVAR(packet_prepend_doc,
"prepend($self, n, /)\n--\n\n"
"Grow the packet by `n` bytes at the front, out of its headroom.\n\n"
"Returns\n-------\n"
"memoryview\n    The `n` new first bytes, not zeroed.\n\n"
"Raises\n------\n"
"ValueError\n    `n` exceeds `headroom`; nothing was changed.");

static PyObject *packet_prepend(struct packet_object *self, PyObject *n)
{
    return packet_move(self, n, "prepend", ssm_packet_prepend);
}

PyDoc_STRVAR(packet_append_doc,
"append($self, n, /)\n--\n\n"
"Grow the packet by `n` bytes at the end, out of its tailroom.\n\n"
"Returns\n-------\n"
"memoryview\n    The `n` new last bytes, not zeroed.\n\n"
"Raises\n------\n"
"ValueError\n    `n` exceeds `tailroom`; nothing was changed.");

static PyObject *packet_append(struct packet_object *self, PyObject *n)
{
    return packet_move(self, n, "append", ssm_packet_append);
}

PyDoc_STRVAR(packet_trim_front_doc,
"trim_front($self, n, /)\n--\n\n"
"Take `n` bytes off the front; they become headroom.\n\n"
"Returns\n-------\n"
"memoryview\n    The `n` bytes that were removed.\n\n"
"Raises\n------\n"
"ValueError\n    The packet has fewer than `n` bytes; nothing was changed.");

static PyObject *packet_trim_front(struct packet_object *self, PyObject *n)
{
    return packet_move(self, n, "trim_front", ssm_packet_trim_front);
}

PyDoc_STRVAR(packet_trim_back_doc,
"trim_back($self, n, /)\n--\n\n"
"Take `n` bytes off the end; they become tailroom.\n\n"
"Returns\n-------\n"
"memoryview\n    The `n` bytes that were removed.\n\n"
"Raises\n------\n"
"ValueError\n    The packet has fewer than `n` bytes; nothing was changed.");

static PyObject *packet_trim_back(struct packet_object *self, PyObject *n)
{
    return packet_move(self, n, "trim_back", ssm_packet_trim_back);
}

PyDoc_STRVAR(packet_truncate_doc,
"truncate($self, size, /)\n--\n\n"
"Cut the packet to its first `size` bytes.\n\n"
"Raises\n------\n"
"ValueError\n    The packet has fewer than `size` bytes; nothing was changed.");

static PyObject *packet_truncate(struct packet_object *self, PyObject *value)
{
    uint64_t size;
    struct ssm_packet window;
    if (parse_bytes("truncate", value, &size) < 0 || packet_open(self, &window) < 0)
        return NULL;
    int result = -SSM_E_ROOM;
    if (size <= window.length)
        result = ssm_packet_trim_back(self->pool->core, self->handle, window.length - size, NULL);
    packet_shut(self);
    if (result == 0)
        RETURN_NONE;
    return result == -SSM_E_ROOM ? raise_room("truncate", size, &window) : packet_raise(self, result);
}

/* ---- bytes --------------------------------------------------------------------------------------- */

static Py_ssize_t packet_length(struct packet_object *self)
{
    struct ssm_packet window;
    if (packet_open(self, &window) < 0)
        return -1;
    packet_shut(self);
    return (Py_ssize_t)window.length;
}

static PyObject *raise_index(Py_ssize_t i, const struct ssm_packet *window)
{
    return PyErr_Format(PyExc_IndexError, "index %zd is out of range: the packet has %zd bytes", i,
                        (Py_ssize_t)window->length);
}

/* sq_item: iteration and `in`; the caller has added the length to a negative index. */
static PyObject *packet_item(struct packet_object *self, Py_ssize_t i)
{
    struct ssm_packet window;
    if (packet_open(self, &window) < 0)
        return NULL;
    bool inside = i >= 0 && i < (Py_ssize_t)window.length;
    uint8_t byte = inside ? window.data[i] : 0;
    packet_shut(self);
    return inside ? PyLong_FromLong(byte) : raise_index(i, &window);
}

static PyObject *packet_read_slice(struct packet_object *self, PyObject *slice)
{
    Py_ssize_t start, stop, step;
    struct ssm_packet window;
    if (PySlice_Unpack(slice, &start, &stop, &step) < 0 || packet_open(self, &window) < 0)
        return NULL;
    Py_ssize_t count = PySlice_AdjustIndices((Py_ssize_t)window.length, &start, &stop, step);
    PyObject *bytes;
    if (step == 1) {
        bytes = PyBytes_FromStringAndSize((const char *)window.data + start, count);
    } else {
        bytes = PyBytes_FromStringAndSize(NULL, count);
        char *out = bytes != NULL ? PyBytes_AsString(bytes) : NULL;
        for (Py_ssize_t i = 0; bytes != NULL && i < count; i++)
            out[i] = (char)window.data[start + i * step];
    }
    packet_shut(self);
    return bytes;
}

static PyObject *packet_subscript(struct packet_object *self, PyObject *key)
{
    struct ssm_packet window;
    Py_ssize_t i;
    if (!argument_is_index(key, &i)) {
        if (PySlice_Check(key))
            return packet_read_slice(self, key);
        if (!PyIndex_Check(key))
            return PyErr_Format(PyExc_TypeError, "packet indices must be integers or slices, not %R", Py_TYPE(key));
        i = PyNumber_AsSsize_t(key, PyExc_IndexError);
        if (i == -1 && PyErr_Occurred())
            return NULL;
    }
    if (packet_open(self, &window) < 0)
        return NULL;
    Py_ssize_t at = i < 0 ? i + (Py_ssize_t)window.length : i;
    bool inside = at >= 0 && at < (Py_ssize_t)window.length;
    uint8_t byte = inside ? window.data[at] : 0;
    packet_shut(self);
    return inside ? PyLong_FromLong(byte) : raise_index(i, &window);
}

static int write_item(struct packet_object *self, PyObject *key, PyObject *value)
{
    struct ssm_packet window;
    uint64_t byte;
    Py_ssize_t i;
    if (!argument_is_index(key, &i)) {
        i = PyNumber_AsSsize_t(key, PyExc_IndexError);
        if (i == -1 && PyErr_Occurred())
            return -1;
    }
    int range = argument_u64(value, &byte);
    if (range < 0)
        return -1;
    if (range > 0 || byte > 255) {
        PyErr_Format(PyExc_ValueError, "a byte must be in 0 .. 255, not %S", value);
        return -1;
    }
    if (packet_open(self, &window) < 0)
        return -1;
    Py_ssize_t at = i < 0 ? i + (Py_ssize_t)window.length : i;
    bool inside = at >= 0 && at < (Py_ssize_t)window.length;
    if (inside)
        window.data[at] = (uint8_t)byte;
    packet_shut(self);
    if (!inside)
        raise_index(i, &window);
    return inside ? 0 : -1;
}

/* The last step of a slice assignment: no Python code runs in it. */
static int write_bytes(struct packet_object *self, PyObject *slice, const char *data, Py_ssize_t length)
{
    Py_ssize_t start, stop, step;
    struct ssm_packet window;
    if (PySlice_Unpack(slice, &start, &stop, &step) < 0 || packet_open(self, &window) < 0)
        return -1;
    Py_ssize_t count = PySlice_AdjustIndices((Py_ssize_t)window.length, &start, &stop, step);
    if (count == length && step == 1)
        memmove(window.data + start, data, (size_t)length); /* the source may be a view of this packet */
    else if (count == length)
        for (Py_ssize_t i = 0; i < count; i++)
            window.data[start + i * step] = (uint8_t)data[i];
    packet_shut(self);
    if (count == length)
        return 0;
    PyErr_Format(
        PyExc_ValueError,
        "cannot assign %zd bytes to a slice of %zd: the packet has %zd bytes, and assignment does not resize it "
        "(append() and truncate() do)",
        length, count, (Py_ssize_t)window.length);
    return -1;
}

/* A source that does not lie in one piece, or may overlap a stepped slice, goes through a copy. */
static int write_copied(struct packet_object *self, PyObject *slice, Py_buffer *source)
{
    char *copy = PyMem_Malloc(source->len > 0 ? (size_t)source->len : 1);
    if (copy == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    int result = PyBuffer_ToContiguous(copy, source, source->len, 'C');
    if (result == 0)
        result = write_bytes(self, slice, copy, source->len);
    PyMem_Free(copy);
    return result;
}

static bool slice_is_plain(PyObject *slice)
{
    Py_ssize_t start, stop, step;
    if (PySlice_Unpack(slice, &start, &stop, &step) < 0) {
        PyErr_Clear(); /* comes again, and is reported, in write_bytes() */
        return true;
    }
    return step == 1;
}

static int write_slice(struct packet_object *self, PyObject *slice, PyObject *value)
{
    if (PyBytes_CheckExact(value))
        return write_bytes(self, slice, PyBytes_AsString(value), Py_SIZE(value));
    Py_buffer source;
    if (PyObject_GetBuffer(value, &source, PyBUF_FULL_RO) < 0)
        return -1;
    int result;
    if (PyBuffer_IsContiguous(&source, 'C') && slice_is_plain(slice))
        result = write_bytes(self, slice, source.buf, source.len);
    else
        result = write_copied(self, slice, &source);
    PyBuffer_Release(&source);
    return result;
}

static int packet_ass_subscript(struct packet_object *self, PyObject *key, PyObject *value)
{
    if (value == NULL)
        PyErr_SetString(PyExc_TypeError,
                        "bytes of a packet cannot be deleted; trim_front(), trim_back() and truncate() cut it");
    else if (self->readonly)
        packet_raise_readonly(PyExc_TypeError);
    else if (PySlice_Check(key))
        return write_slice(self, key, value);
    else if (PyLong_CheckExact(key) || PyIndex_Check(key))
        return write_item(self, key, value);
    else
        PyErr_Format(PyExc_TypeError, "packet indices must be integers or slices, not %R", Py_TYPE(key));
    return -1;
}

PyDoc_STRVAR(packet_asarray_doc,
"asarray($self, /, dtype='u1', shape=None)\n--\n\n"
"A numpy array over the payload; nothing is copied.\n\n"
"The array covers the window as it is now. It stays valid when the packet is freed or sent: the block goes back to\n"
"the pool when the last array and view of it is gone.\n\n"
"Parameters\n----------\n"
"dtype : numpy dtype\n    Whatever ``numpy.dtype`` takes, without Python objects in it.\n"
"shape : int or tuple of int, optional\n    One number may be -1. By default one dimension of ``nbytes // itemsize``.\n\n"
"Returns\n-------\n"
"numpy.ndarray\n    Writable unless the packet is `readonly`, shape `shape`, of `nbytes` bytes.\n\n"
"Raises\n------\n"
"ValueError\n    The payload does not divide into `dtype` and `shape`.");

static PyObject *packet_asarray(struct packet_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct parameters parameters = {"asarray", {KEYWORD_dtype, KEYWORD_shape}, 2, 2, 0};
    PyObject *values[2] = {NULL, NULL};
    if ((nargs != 0 || kwnames != NULL) && arguments_bind(self->state, &parameters, args, nargs, kwnames, values) < 0)
        return NULL;
    return array_of_packet(self, values[0], values[1] == Py_None ? NULL : values[1]);
}

PyDoc_STRVAR(packet_dlpack_doc,
"__dlpack__($self, /, *, stream=None, max_version=None, dl_device=None, copy=None)\n--\n\n"
"The payload as a DLPack tensor of uint8, one dimension: numpy's, of `asarray`, which looks at the arguments.\n\n"
"A `readonly` packet takes a consumer of version 1.0 or later; others get BufferError. numpy 2.0 itself is older than\n"
"that: there `max_version`, `dl_device` and `copy` are TypeError, upon which consumers ask again without them.");

static PyObject *packet_dlpack(struct packet_object *self, PyObject *args, PyObject *kwargs)
{
    PyObject *array = array_of_packet(self, NULL, NULL); /* the tensor keeps it, and it the packet */
    PyObject *method = array != NULL ? PyObject_GetAttrString(array, "__dlpack__") : NULL;
    PyObject *capsule = method != NULL ? PyObject_Call(method, args, kwargs) : NULL;
    Py_XDECREF(method);
    Py_XDECREF(array);
    return capsule;
}

static PyObject *packet_dlpack_device(struct packet_object *self, PyObject *unused)
{
    (void)unused;
    return packet_check(self) ? Py_BuildValue("(ii)", 1 /* kDLCPU */, 0) : packet_raise_stale(self);
}

/* ---- the rest ------------------------------------------------------------------------------------ */

PyDoc_STRVAR(packet_free_doc,
"free($self, /)\n--\n\n"
"Give the packet back to the pool.\n\n"
"Views and arrays of it stay valid: then the block goes back with the last of them.\n\n"
"Raises\n------\n"
"StaleHandle\n    It was freed or sent before.");

static PyObject *packet_free(struct packet_object *self, PyObject *unused)
{
    (void)unused;
    if (!packet_finish(self))
        return packet_raise_stale(self);
    RETURN_NONE;
}

static PyObject *packet_enter(struct packet_object *self, PyObject *unused)
{
    (void)unused;
    if (!packet_check(self))
        return packet_raise_stale(self);
    Py_INCREF(OBJECT(self));
    return OBJECT(self);
}

/* A packet that was sent or freed inside the block has nothing left to give back. A job that raised is not done. */
static PyObject *packet_exit(struct packet_object *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs > 0 && args[0] != Py_None && self->delivery != SSM_NO_DELIVERY)
        packet_return(self);
    else
        packet_finish(self);
    RETURN_NONE;
}

static PyObject *packet_repr(struct packet_object *self)
{
    struct ssm_packet window;
    char text[160];
    bool live;
    POOL_LOCK(self->pool)
    live = packet_is_live(self) && ssm_packet_view(self->pool->core, self->handle, &window) == 0;
    POOL_UNLOCK()
    if (live)
        snprintf(text, sizeof(text), "<ssm.Packet 0x%016llx: %llu bytes in a block of %llu>",
                 (unsigned long long)self->handle, (unsigned long long)window.length,
                 (unsigned long long)window.block_size);
    else
        snprintf(text, sizeof(text), "<ssm.Packet 0x%016llx: %s>", (unsigned long long)self->handle,
                 self->status == PACKET_FREED      ? "freed"
                 : self->status == PACKET_SENT     ? "sent"
                 : self->status == PACKET_LINKED   ? "linked"
                 : self->status == PACKET_RETURNED ? "returned"
                                                   : "stale");
    return PyUnicode_FromString(text);
}

static PyObject *packet_get_handle(struct packet_object *self, void *unused)
{
    (void)unused;
    return packet_check(self) ? PyLong_FromUnsignedLongLong(self->handle) : packet_raise_stale(self);
}

/* The closure is the field's offset in struct ssm_packet. */
static PyObject *packet_get_window(struct packet_object *self, void *offset)
{
    struct ssm_packet window;
    uint64_t value;
    if (packet_open(self, &window) < 0)
        return NULL;
    packet_shut(self);
    memcpy(&value, (const char *)&window + (size_t)offset, sizeof(value));
    return PyLong_FromUnsignedLongLong(value);
}

static PyObject *packet_get_tag(struct packet_object *self, void *unused)
{
    (void)unused;
    uint64_t tag;
    int result;
    POOL_CALL(self->pool, result,
              packet_is_live(self) ? ssm_packet_tag(self->pool->core, self->handle, &tag) : -SSM_E_STALE);
    return result == 0 ? PyLong_FromUnsignedLongLong(tag) : packet_raise(self, result);
}

static int packet_set_tag(struct packet_object *self, PyObject *value, void *unused)
{
    (void)unused;
    uint64_t tag;
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError, "a packet's tag cannot be deleted; set it to 0");
        return -1;
    }
    int range = argument_u64(value, &tag);
    if (range > 0)
        PyErr_Format(PyExc_OverflowError, "a tag is an integer in 0 .. 2**64 - 1, not %S", value);
    if (range != 0)
        return -1;
    int result;
    POOL_CALL(self->pool, result,
              packet_is_live(self) ? ssm_packet_set_tag(self->pool->core, self->handle, tag) : -SSM_E_STALE);
    if (result != 0)
        packet_raise(self, result);
    return result == 0 ? 0 : -1;
}

#define WINDOW(field) ((void *)offsetof(struct ssm_packet, field))
static PyObject *packet_get_redelivered(struct packet_object *self, void *unused)
{
    int result;
    (void)unused;
    POOL_CALL(self->pool, result,
              packet_is_live(self) ? ssm_packet_redelivered(self->pool->core, self->handle) : -SSM_E_STALE);
    return result < 0 ? packet_raise(self, result) : PyBool_FromLong(result);
}

static PyObject *packet_get_position(struct packet_object *self, void *unused)
{
    uint64_t position;
    int result;
    (void)unused;
    POOL_CALL(self->pool, result,
              packet_is_live(self) ? ssm_packet_position(self->pool->core, self->handle, self->delivery, &position)
                                   : -SSM_E_STALE);
    if (result < 0)
        return packet_raise(self, result);
    return result > 0 ? PyLong_FromUnsignedLongLong(position) : Py_NewRef(Py_None);
}

static PyObject *packet_get_deliveries(struct packet_object *self, void *unused)
{
    uint64_t count = 0;
    int result;
    (void)unused;
    POOL_CALL(self->pool, result,
              packet_is_live(self) ? ssm_packet_deliveries(self->pool->core, self->handle, self->delivery, &count)
                                   : -SSM_E_STALE);
    return result < 0 ? packet_raise(self, result) : PyLong_FromUnsignedLongLong(count);
}

static PyObject *packet_get_readonly(struct packet_object *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(self->readonly);
}

PyDoc_STRVAR(packet_chain_doc,
"tuple of Packet : the segments behind this packet, where a message does not fit into one; empty at first.\n\n"
"Setting it to Packets hangs them behind this one, and finishes those objects, as put() does; what hung there before is\n"
"freed. ``packet.chain = ()`` frees them. put() hands the whole chain over, as one packet of the ring; its consumer has\n"
"all of it, and frees it with the head. Each Packet of the tuple is a reference of its own: free them before put().\n\n"
"Raises ValueError for more than 1,023 segments; for one that another process or a ring has as well, that has a second\n"
"Packet here, is a segment already, has a chain itself, or came out of a ring with ``redeliver=True``; BufferError while\n"
"views of one exist; StaleHandle. Nothing has changed then.");

static PyGetSetDef packet_attributes[] = {
    {"handle", (getter)packet_get_handle, NULL, "int : 64 bits; names the packet in this process, see Pool.packet().",
     NULL},
    {"nbytes", (getter)packet_get_window, NULL, "int : bytes of data, as len().", WINDOW(length)},
    {"headroom", (getter)packet_get_window, NULL, "int : bytes that prepend() can add.", WINDOW(headroom)},
    {"tailroom", (getter)packet_get_window, NULL, "int : bytes that append() can add.", WINDOW(tailroom)},
    {"block_size", (getter)packet_get_window, NULL, "int : bytes of the block: headroom, data and tailroom.",
     WINDOW(block_size)},
    {"tag", (getter)packet_get_tag, (setter)packet_set_tag,
     "int : 64 bits of the user's, travel with the packet; 0 at first.", NULL},
    {"chain", (getter)packet_get_chain, (setter)packet_set_chain, packet_chain_doc, NULL},
    {"redelivered", (getter)packet_get_redelivered, NULL,
     "bool : another process had taken it from the same ring, and died; see `Pool.ring`.", NULL},
    {"deliveries", (getter)packet_get_deliveries, NULL,
     "int : how often its ring has handed it out since it was put, this time included: 1, and one more for each process\n"
     "that had it and died, or gave it back. 0 unless it was taken out of a ring with ``redeliver=True``.",
     NULL},
    {"position", (getter)packet_get_position, NULL,
     "int or None : how many packets were put into its ring before it; the same when it is redelivered. None unless it was\n"
     "taken out of a ring with ``redeliver=True``.",
     NULL},
    {"readonly", (getter)packet_get_readonly, NULL,
     "bool : views and arrays of it cannot be written to; see `Ring.get`. Its window and its tag are as of any packet.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef packet_methods[] = {
    {"prepend", (PyCFunction)packet_prepend, METH_O, packet_prepend_doc},
    {"append", (PyCFunction)packet_append, METH_O, packet_append_doc},
    {"trim_front", (PyCFunction)packet_trim_front, METH_O, packet_trim_front_doc},
    {"trim_back", (PyCFunction)packet_trim_back, METH_O, packet_trim_back_doc},
    {"truncate", (PyCFunction)packet_truncate, METH_O, packet_truncate_doc},
    {"asarray", FAST(packet_asarray), METH_FASTCALL | METH_KEYWORDS, packet_asarray_doc},
    {"__dlpack__", (PyCFunction)(void (*)(void))packet_dlpack, METH_VARARGS | METH_KEYWORDS, packet_dlpack_doc},
    {"__dlpack_device__", (PyCFunction)packet_dlpack_device, METH_NOARGS,
     "__dlpack_device__($self, /)\n--\n\nThe host's memory, as DLPack numbers devices: ``(1, 0)``."},
    {"free", (PyCFunction)packet_free, METH_NOARGS, packet_free_doc},
    {"__enter__", (PyCFunction)packet_enter, METH_NOARGS, "__enter__($self, /)\n--\n\n"},
    {"__exit__", FAST(packet_exit), METH_FASTCALL,
     "__exit__($self, /, *exc_info)\n--\n\nFree the packet, unless it was freed or sent. After an exception, one that came out of a\n"
     "ring with ``redeliver=True`` goes back to it, to the front, and is delivered once more."},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(packet_doc,
"A packet of a pool that this process holds: a writable buffer of bytes in shared memory.\n\n"
"Made by `Pool.alloc`, `Pool.packet`, `Ring.get` and by indexing a `PacketBatch`. Reads and writes like a bytearray of\n"
"fixed size: ``packet[0]``, ``packet[2:5] = b\"abc\"``, ``memoryview(packet)``, ``packet.asarray()``. free(), the end of\n"
"``with packet:``, or the last reference going away gives the block back; afterwards every use is StaleHandle.");

static PyType_Slot packet_slots[] = {
    {Py_tp_doc, (void *)packet_doc},
    {Py_tp_dealloc, packet_dealloc},
    {Py_tp_repr, packet_repr},
    {Py_tp_methods, packet_methods},
    {Py_tp_getset, packet_attributes},
    {Py_tp_iter, PySeqIter_New},
    {Py_sq_length, packet_length},
    {Py_sq_item, packet_item},
    {Py_mp_length, packet_length},
    {Py_mp_subscript, packet_subscript},
    {Py_mp_ass_subscript, packet_ass_subscript},
    {Py_bf_getbuffer, packet_getbuffer},
    {Py_bf_releasebuffer, packet_releasebuffer},
    {0, NULL},
};

static PyType_Spec packet_spec = {
    .name = "ssm.Packet",
    .basicsize = sizeof(struct packet_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = packet_slots,
};

int packet_exec(PyObject *module, struct module_state *state)
{
    state->packet_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &packet_spec, NULL);
    state->span_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &span_spec, NULL);
    if (state->packet_type == NULL || state->span_type == NULL)
        return -1;
    return PyModule_AddType(module, state->packet_type);
}
