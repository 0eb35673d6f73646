/* SPDX-License-Identifier: Apache-2.0
 *
 * ssm.PacketBatch: many packets at the price of one object. Its arrays are copies, or lie over `handles`, never over
 * the pool's memory: so it pins nothing. */
#include "binding.h"

#include <stdio.h>
#include <string.h>

/* ---- life ---------------------------------------------------------------------------------------- */

struct batch_object *batch_new(struct pool_object *pool, uint32_t room)
{
    struct batch_object *batch = PyObject_NewVar(struct batch_object, pool->state->batch_type, room);
    if (batch == NULL)
        return NULL;
    Py_INCREF(OBJECT(pool));
    batch->weakrefs = NULL;
    batch->state = pool->state;
    batch->pool = pool;
    batch->status = PACKET_EMPTY;
    batch->count = 0;
    batch->readonly = false;
    batch->mixed = false;
    return batch;
}

void batch_adopt(struct batch_object *batch, uint32_t count, uint64_t delivery)
{
    batch->delivery = delivery;
    batch->count = count;
    batch->era = *batch->pool->era;
    batch->status = PACKET_LIVE;
}

static uint64_t delivery_of(struct batch_object *batch, uint32_t i)
{
    return batch_deliveries(batch)[batch->mixed ? i : 0];
}

/* How many packets one call of the core is for: all, if they have one delivery. */
static uint32_t step_of(const struct batch_object *batch)
{
    return batch->mixed ? 1 : batch->count;
}

/* With POOL_LOCK. */
static int free_all(struct batch_object *batch)
{
    int result = 0;
    for (uint32_t i = 0; i < batch->count; i += step_of(batch)) {
        int one = ssm_free_many_of(batch->pool->core, batch->handles + i, step_of(batch), delivery_of(batch, i), true);
        result = result == 0 ? one : result;
    }
    return result;
}

static void batch_dealloc(struct batch_object *self)
{
    PyTypeObject *type = Py_TYPE(OBJECT(self));
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs(OBJECT(self));
    POOL_LOCK(self->pool)
    for (uint32_t i = 0; batch_is_live(self) && i < self->count; i += step_of(self))
        if (!deliveries_stay(self->pool, self->handles + i, step_of(self), delivery_of(self, i)))
            ssm_free_many_of(self->pool->core, self->handles + i, step_of(self), delivery_of(self, i), false);
    POOL_UNLOCK()
    Py_DECREF(OBJECT(self->pool));
    PyObject_Free(self);
    Py_DECREF(OBJECT(type));
}

static int finish_locked(struct batch_object *batch, enum packet_status status)
{
    if (!batch_is_live(batch))
        return -SSM_E_STALE;
    batch->status = status;
    return free_all(batch);
}

int batch_finish(struct batch_object *batch)
{
    int result;
    POOL_LOCK(batch->pool)
    result = finish_locked(batch, PACKET_FREED);
    POOL_UNLOCK()
    return result;
}

void batch_sent(struct batch_object *batch, bool kept)
{
    if (kept)
        finish_locked(batch, PACKET_SENT);
    else
        batch->status = PACKET_SENT;
}

static const char *why_stale(const struct batch_object *batch)
{
    if (batch->status == PACKET_FREED)
        return "were freed; take new ones with pool.alloc_many()";
    if (batch->status == PACKET_SENT)
        return "were put into a ring and belong to its readers";
    if (batch->status == PACKET_RETURNED)
        return "went back to their ring: the block of the with statement raised an exception";
    if (batch->pool->closed)
        return "went back when their pool was closed";
    if (batch->era != *batch->pool->era)
        return "belong to the parent process; a forked child gets packets through a ring";
    return "are not held by this process any more";
}

PyObject *batch_raise_stale(const struct batch_object *batch)
{
    const char *why;
    POOL_LOCK(batch->pool)
    why = why_stale(batch);
    POOL_UNLOCK()
    return PyErr_Format(batch->state->ours[ERROR_StaleHandle], "the %u packets of a batch of pool %R %s", batch->count,
                        batch->pool->name, why);
}

static PyObject *raise_batch(const struct batch_object *batch, int code)
{
    if (code == -SSM_E_STALE || code == -SSM_E_CLOSED)
        return batch_raise_stale(batch);
    return raise_code(batch->pool, code);
}

/* ---- one packet of it ---------------------------------------------------------------------------- */

/* result = what the core answers to a call for a packet of the batch, or that it is stale. */
#define BATCH_CALL(batch, result, call) POOL_CALL((batch)->pool, result, batch_is_live(batch) ? (call) : -SSM_E_STALE)

static int view(struct batch_object *batch, uint32_t i, struct ssm_packet *window_out)
{
    int result;
    BATCH_CALL(batch, result, ssm_packet_view(batch->pool->core, batch->handles[i], window_out));
    return result;
}

static Py_ssize_t batch_length(struct batch_object *self)
{
    if (batch_check(self))
        return self->count;
    batch_raise_stale(self);
    return -1;
}

static PyObject *raise_index(Py_ssize_t i, const struct batch_object *batch)
{
    return PyErr_Format(PyExc_IndexError, "index %zd is out of range: the batch has %u packets", i, batch->count);
}

static PyObject *batch_item(struct batch_object *self, Py_ssize_t i)
{
    if (!batch_check(self))
        return batch_raise_stale(self);
    if (i < 0 || i >= (Py_ssize_t)self->count)
        return raise_index(i, self);
    struct packet_object *packet = packet_new(self->pool);
    if (packet == NULL)
        return NULL;
    packet->readonly = self->readonly;
    int result;
    BATCH_CALL(self, result, ssm_packet_hold_of(self->pool->core, self->handles[i], delivery_of(self, (uint32_t)i)));
    if (result == 0) {
        packet_adopt(packet, self->handles[i], delivery_of(self, (uint32_t)i));
        return OBJECT(packet);
    }
    Py_DECREF(OBJECT(packet));
    return raise_batch(self, result);
}

/* ---- parts and sums -------------------------------------------------------------------------------- */

/* Adds a reference to packet i of the batch. False: with an exception set. */
static bool add_packet(struct batch_object *sum, struct batch_object *batch, Py_ssize_t i)
{
    int result;
    BATCH_CALL(batch, result,
               ssm_packet_hold_of(batch->pool->core, batch->handles[i], delivery_of(batch, (uint32_t)i)));
    if (result != 0) {
        raise_batch(batch, result);
        return false;
    }
    if (sum->mixed)
        sum->handles[Py_SIZE(OBJECT(sum)) / 2 + sum->count] = delivery_of(batch, (uint32_t)i);
    sum->handles[sum->count++] = batch->handles[i];
    return true;
}

/* Makes a batch LIVE that add_packet() has filled; those references go if it failed. */
static PyObject *finish_sum(struct batch_object *sum, uint64_t delivery, bool filled)
{
    batch_adopt(sum, sum->count, delivery);
    if (filled)
        return OBJECT(sum);
    PyObject *kind, *value, *trace;
    PyErr_Fetch(&kind, &value, &trace); /* what is freed here is no loss: the batches have it still */
    Py_DECREF(OBJECT(sum));
    PyErr_Restore(kind, value, trace);
    return NULL;
}

static PyObject *batch_slice(struct batch_object *self, PyObject *key)
{
    Py_ssize_t start, stop, step;
    if (!batch_check(self))
        return batch_raise_stale(self);
    if (PySlice_Unpack(key, &start, &stop, &step) < 0)
        return NULL;
    const Py_ssize_t count = PySlice_AdjustIndices(self->count, &start, &stop, step);
    struct batch_object *part = batch_new(self->pool, (uint32_t)(self->mixed ? 2 * count : count));
    if (part == NULL)
        return NULL;
    part->mixed = self->mixed;
    part->readonly = self->readonly;
    bool filled = true;
    for (Py_ssize_t i = 0; filled && i < count; i++)
        filled = add_packet(part, self, start + i * step);
    return finish_sum(part, self->delivery, filled);
}

static PyObject *batch_concat(struct batch_object *self, PyObject *other_object)
{
    if (Py_TYPE(other_object) != self->state->batch_type)
        return PyErr_Format(PyExc_TypeError, "only a PacketBatch can be added to one, not %R; or use [*batch, ...]",
                            Py_TYPE(other_object));
    struct batch_object *other = (struct batch_object *)other_object;
    if (!batch_check(self) || !batch_check(other))
        return batch_raise_stale(batch_check(self) ? other : self);
    if (self->pool != other->pool)
        return PyErr_Format(PyExc_ValueError, "the batches are of two pools, %R and %R: a batch has packets of one",
                            self->pool->name, other->pool->name);
    const uint64_t count = (uint64_t)self->count + other->count;
    const bool mixed = self->mixed || other->mixed || self->delivery != other->delivery;
    if (count > UINT32_MAX / 2)
        return PyErr_NoMemory();
    struct batch_object *sum = batch_new(self->pool, (uint32_t)(mixed ? 2 * count : count));
    if (sum == NULL)
        return NULL;
    sum->mixed = mixed;
    sum->readonly = self->readonly || other->readonly;
    bool filled = true;
    for (uint32_t i = 0; filled && i < self->count; i++)
        filled = add_packet(sum, self, i);
    for (uint32_t i = 0; filled && i < other->count; i++)
        filled = add_packet(sum, other, i);
    return finish_sum(sum, self->delivery, filled);
}

static PyObject *batch_subscript(struct batch_object *self, PyObject *key)
{
    if (PySlice_Check(key))
        return batch_slice(self, key);
    if (!PyIndex_Check(key))
        return PyErr_Format(PyExc_TypeError, "batch indices must be integers or slices, not %R", Py_TYPE(key));
    Py_ssize_t i = PyNumber_AsSsize_t(key, PyExc_IndexError);
    if (i == -1 && PyErr_Occurred())
        return NULL;
    if (i < 0 && i + (Py_ssize_t)self->count < 0)
        return batch_check(self) ? raise_index(i, self) : batch_raise_stale(self);
    return batch_item(self, i < 0 ? i + (Py_ssize_t)self->count : i);
}

/* ---- lengths and tags ---------------------------------------------------------------------------- */

static PyObject *batch_get_handles(struct batch_object *self, void *unused)
{
    (void)unused;
    if (!batch_check(self))
        return batch_raise_stale(self);
    return array_over_u64(self->state, OBJECT(self), self->handles, self->count);
}

/* Steals the array; the class that writes through is Python (ssm/columns.py). */
static PyObject *make_column(struct batch_object *self, PyObject *array, const char *name)
{
    PyObject *column = PyObject_CallFunction(self->state->ours[FUNCTION_column], "OOs", array, self, name);
    Py_DECREF(array);
    return column;
}

/* One number per packet, which `read` looks up. */
static PyObject *read_column(struct batch_object *self, const char *name,
                             int (*read)(struct batch_object *, uint32_t, uint64_t *))
{
    uint64_t *values;
    PyObject *array = array_new_u64(self->state, self->count, &values);
    int result = 0;
    for (uint32_t i = 0; array != NULL && result == 0 && i < self->count; i++)
        result = read(self, i, &values[i]);
    if (result == 0)
        return array != NULL ? make_column(self, array, name) : NULL;
    Py_DECREF(array);
    return raise_batch(self, result);
}

static int read_length(struct batch_object *batch, uint32_t i, uint64_t *out)
{
    struct ssm_packet window;
    int result = view(batch, i, &window);
    *out = result == 0 ? window.length : 0;
    return result;
}

static int read_tag(struct batch_object *batch, uint32_t i, uint64_t *out)
{
    int result;
    BATCH_CALL(batch, result, ssm_packet_tag(batch->pool->core, batch->handles[i], out));
    return result;
}

static PyObject *batch_get_lengths(struct batch_object *self, void *unused)
{
    (void)unused;
    return batch_check(self) ? read_column(self, "lengths", read_length) : batch_raise_stale(self);
}

static PyObject *batch_get_tags(struct batch_object *self, void *unused)
{
    (void)unused;
    return batch_check(self) ? read_column(self, "tags", read_tag) : batch_raise_stale(self);
}

static PyObject *batch_get_redelivered(struct batch_object *self, void *unused)
{
    uint8_t *values;
    (void)unused;
    if (!batch_check(self))
        return batch_raise_stale(self);
    PyObject *array = array_new_bool(self->state, self->count, &values);
    int result = 0;
    for (uint32_t i = 0; array != NULL && result >= 0 && i < self->count; i++) {
        BATCH_CALL(self, result, ssm_packet_redelivered(self->pool->core, self->handles[i]));
        values[i] = result > 0;
    }
    if (result >= 0)
        return array;
    Py_DECREF(array);
    return raise_batch(self, result);
}

/* Did a redelivering ring give it all its packets? */
static bool is_delivered(struct batch_object *batch)
{
    for (uint32_t i = 0; i < batch->count; i += step_of(batch))
        if (delivery_of(batch, i) == SSM_NO_DELIVERY)
            return false;
    return true;
}

static PyObject *batch_get_positions(struct batch_object *self, void *unused)
{
    uint64_t *values;
    (void)unused;
    if (!batch_check(self))
        return batch_raise_stale(self);
    if (!is_delivered(self))
        RETURN_NONE;
    PyObject *array = array_new_u64(self->state, self->count, &values);
    int result = 1;
    for (uint32_t i = 0; array != NULL && result > 0 && i < self->count; i++)
        BATCH_CALL(self, result,
                   ssm_packet_position(self->pool->core, self->handles[i], delivery_of(self, i), &values[i]));
    if (result > 0)
        return array;
    Py_DECREF(array);
    return result < 0 ? raise_batch(self, result) : Py_NewRef(Py_None);
}

static int set_length_locked(struct ssm_pool *core, uint64_t handle, uint64_t length)
{
    struct ssm_packet window;
    int result = ssm_packet_view(core, handle, &window);
    if (result == 0 && length > window.length)
        result = ssm_packet_append(core, handle, length - window.length, NULL);
    else if (result == 0)
        result = ssm_packet_trim_back(core, handle, window.length - length, NULL);
    return result;
}

/* Every length is looked at before the first is set. */
static int check_lengths(struct batch_object *batch, const uint64_t *lengths)
{
    for (uint32_t i = 0; i < batch->count; i++) {
        struct ssm_packet window;
        int result = view(batch, i, &window);
        if (result != 0) {
            raise_batch(batch, result);
            return -1;
        }
        if (lengths[i] > window.length + window.tailroom) {
            char text[200];
            snprintf(text, sizeof(text), "length %llu of packet %u exceeds its room of %llu bytes; nothing was changed",
                     (unsigned long long)lengths[i], i, (unsigned long long)(window.length + window.tailroom));
            PyErr_SetString(PyExc_ValueError, text);
            return -1;
        }
    }
    return 0;
}

static int apply_lengths(struct batch_object *batch, const uint64_t *lengths)
{
    int result = 0;
    for (uint32_t i = 0; result == 0 && i < batch->count; i++)
        BATCH_CALL(batch, result, set_length_locked(batch->pool->core, batch->handles[i], lengths[i]));
    if (result != 0) /* another process that holds the packet moved its window meanwhile */
        raise_batch(batch, result);
    return result == 0 ? 0 : -1;
}

static int apply_tags(struct batch_object *batch, const uint64_t *tags)
{
    int result = 0;
    for (uint32_t i = 0; result == 0 && i < batch->count; i++)
        BATCH_CALL(batch, result, ssm_packet_set_tag(batch->pool->core, batch->handles[i], tags[i]));
    if (result != 0)
        raise_batch(batch, result);
    return result == 0 ? 0 : -1;
}

/* Reads the numbers of an assignment to `what`, or returns NULL with an exception set. */
static uint64_t *parse_column(struct batch_object *self, PyObject *value, const char *what)
{
    uint64_t *values = NULL;
    if (value == NULL)
        PyErr_Format(PyExc_TypeError, "the %s of a batch cannot be deleted", what);
    else if (!batch_check(self))
        batch_raise_stale(self);
    else if ((values = PyMem_Calloc(self->count, sizeof(*values))) == NULL)
        PyErr_NoMemory();
    else if (array_read_u64(self->state, value, what, self->count, values) == 0)
        return values;
    PyMem_Free(values);
    return NULL;
}

static int batch_set_lengths(struct batch_object *self, PyObject *value, void *unused)
{
    (void)unused;
    uint64_t *lengths = parse_column(self, value, "lengths");
    if (lengths == NULL)
        return -1;
    int result = check_lengths(self, lengths);
    if (result == 0)
        result = apply_lengths(self, lengths);
    PyMem_Free(lengths);
    return result;
}

static int batch_set_tags(struct batch_object *self, PyObject *value, void *unused)
{
    (void)unused;
    uint64_t *tags = parse_column(self, value, "tags");
    int result = tags != NULL ? apply_tags(self, tags) : -1;
    PyMem_Free(tags);
    return result;
}

/* ---- rows <-> packets ---------------------------------------------------------------------------- */

/* All packets must have *row_bytes bytes; with `any` as many as the first has, which *row_bytes is set to. */
static int check_rows(struct batch_object *self, uint64_t *row_bytes, bool any)
{
    for (uint32_t i = 0; i < self->count; i++) {
        struct ssm_packet window;
        int result = view(self, i, &window);
        if (result != 0) {
            raise_batch(self, result);
            return -1;
        }
        if (any && i == 0)
            *row_bytes = window.length;
        if (window.length == *row_bytes)
            continue;
        char text[200];
        snprintf(text, sizeof(text), "rows are %llu bytes, packet %u has %llu; set batch.lengths to one length first",
                 (unsigned long long)*row_bytes, i, (unsigned long long)window.length);
        PyErr_SetString(PyExc_ValueError, text);
        return -1;
    }
    return 0;
}

/* Finds the bytes of packet i; without the GIL it pins them as well, against a close in another thread. */
static int begin_row(struct batch_object *self, uint32_t i, struct ssm_packet *window_out)
{
    int result = view(self, i, window_out);
#ifdef Py_GIL_DISABLED
    if (result == 0)
        BATCH_CALL(self, result, ssm_packet_pin(self->pool->core, self->handles[i]));
#endif
    if (result == 0)
        return 0;
    raise_batch(self, result);
    return -1;
}

static void end_row(struct batch_object *self, uint32_t i)
{
#ifdef Py_GIL_DISABLED
    POOL_LOCK(self->pool)
    ssm_packet_unpin(self->pool->core, self->handles[i], 0);
    POOL_UNLOCK()
#else
    (void)self, (void)i;
#endif
}

static void copy_row(uint8_t *out, const uint8_t *row, Py_ssize_t items, Py_ssize_t item_bytes, Py_ssize_t stride)
{
    if (stride == item_bytes) {
        memcpy(out, row, (size_t)(items * item_bytes));
        return;
    }
    for (Py_ssize_t i = 0; i < items; i++)
        memcpy(out + i * item_bytes, row + i * stride, (size_t)item_bytes);
}

static int check_rows_of(struct batch_object *self, const Py_buffer *array)
{
    uint64_t row_bytes;
    if (array->ndim != 2 || array->shape[0] != (Py_ssize_t)self->count) {
        PyErr_Format(PyExc_ValueError,
                     "scatter() needs a 2-D array of %u rows, one per packet; this one has %d dimension%s and %zd rows",
                     self->count, array->ndim, array->ndim == 1 ? "" : "s",
                     array->ndim > 0 ? array->shape[0] : (Py_ssize_t)0);
        return -1;
    }
    if (array->format != NULL && strchr(array->format, 'O') != NULL) {
        PyErr_SetString(PyExc_TypeError,
                        "scatter() cannot copy Python objects into shared memory; use an array of numbers");
        return -1;
    }
    row_bytes = (uint64_t)(array->shape[1] * array->itemsize);
    return check_rows(self, &row_bytes, false);
}

PyDoc_STRVAR(batch_scatter_doc,
"scatter($self, rows, /)\n--\n\n"
"Copy row i into packet i, for all packets.\n\n"
"Parameters\n----------\n"
"rows : array_like\n    2-D with the buffer protocol, ``len(batch)`` rows of as many bytes as the packets have.\n\n"
"Raises\n------\n"
"ValueError\n    The shape does not fit; nothing was copied.\n"
"TypeError\n    The batch is read-only.");

static PyObject *batch_scatter(struct batch_object *self, PyObject *rows)
{
    Py_buffer array;
    if (!batch_check(self))
        return batch_raise_stale(self);
    if (self->readonly && packet_raise_readonly(PyExc_TypeError) < 0)
        return NULL;
    if (PyObject_GetBuffer(rows, &array, PyBUF_STRIDED_RO | PyBUF_FORMAT) < 0)
        return NULL;
    int result = check_rows_of(self, &array);
    for (uint32_t i = 0; result == 0 && i < self->count; i++) {
        struct ssm_packet window;
        const uint8_t *row = (const uint8_t *)array.buf + i * array.strides[0];
        result = begin_row(self, i, &window);
        if (result != 0)
            break;
        if (window.length >= (uint64_t)(array.shape[1] * array.itemsize)) /* as it was a moment ago */
            copy_row(window.data, row, array.shape[1], array.itemsize, array.strides[1]);
        end_row(self, i);
    }
    PyBuffer_Release(&array);
    if (result != 0)
        return NULL;
    RETURN_NONE;
}

PyDoc_STRVAR(batch_gather_doc,
"gather($self, /)\n--\n\n"
"Copy all packets into one array.\n\n"
"Returns\n-------\n"
"numpy.ndarray\n    Shape ``(len(batch), length)``, dtype uint8.\n\n"
"Raises\n------\n"
"ValueError\n    The packets differ in length.");

static PyObject *batch_gather(struct batch_object *self, PyObject *unused)
{
    (void)unused;
    uint64_t row_bytes = 0;
    uint8_t *out;
    if (!batch_check(self))
        return batch_raise_stale(self);
    if (check_rows(self, &row_bytes, true) < 0)
        return NULL;
    PyObject *array = array_new_rows(self->state, self->count, row_bytes, &out);
    for (uint32_t i = 0; array != NULL && i < self->count; i++) {
        struct ssm_packet window;
        if (begin_row(self, i, &window) < 0) {
            Py_CLEAR(array);
            break;
        }
        uint64_t bytes = window.length < row_bytes ? window.length : row_bytes; /* it was equal a moment ago */
        memcpy(out + i * row_bytes, window.data, bytes);
        memset(out + i * row_bytes + bytes, 0, row_bytes - bytes);
        end_row(self, i);
    }
    return array;
}

/* ---- the rest ------------------------------------------------------------------------------------ */

PyDoc_STRVAR(batch_free_doc,
"free($self, /)\n--\n\n"
"Give all packets back to the pool; Packet objects made from the batch keep theirs.\n\n"
"Raises\n------\n"
"StaleHandle\n    They were freed or sent before.");

static PyObject *batch_free(struct batch_object *self, PyObject *unused)
{
    (void)unused;
    int result = batch_finish(self);
    if (result != 0)
        return raise_batch(self, result);
    RETURN_NONE;
}

static PyObject *batch_enter(struct batch_object *self, PyObject *unused)
{
    (void)unused;
    if (!batch_check(self))
        return batch_raise_stale(self);
    Py_INCREF(OBJECT(self));
    return OBJECT(self);
}

/* LIVE -> RETURNED: the deliveries that have not ended go back to the ring. */
static void give_back(struct batch_object *batch)
{
    if (!batch_check(batch))
        return;
    bool all = true;
    for (uint32_t i = 0; i < batch->count; i += step_of(batch))
        all = packets_return(batch->pool, batch->handles + i, step_of(batch), delivery_of(batch, i)) && all;
    POOL_LOCK(batch->pool)
    if (all)
        finish_locked(batch, PACKET_RETURNED);
    else if (batch_is_live(batch))
        batch->status = PACKET_RETURNED; /* with its references, until this process ends */
    POOL_UNLOCK()
}

static PyObject *batch_exit(struct batch_object *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs > 0 && args[0] != Py_None && (self->mixed || self->delivery != SSM_NO_DELIVERY))
        give_back(self);
    else
        batch_finish(self);
    RETURN_NONE;
}

static PyObject *batch_repr(struct batch_object *self)
{
    const char *status = batch_check(self)               ? ""
                       : self->status == PACKET_FREED    ? ", freed"
                       : self->status == PACKET_SENT     ? ", sent"
                       : self->status == PACKET_RETURNED ? ", returned"
                                                         : ", stale";
    return PyUnicode_FromFormat("<ssm.PacketBatch of %u packets%s>", self->count, status);
}

static PyObject *batch_get_readonly(struct batch_object *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(self->readonly);
}

static PyGetSetDef batch_attributes[] = {
    {"handles", (getter)batch_get_handles, NULL, "numpy.ndarray of uint64, read-only : one handle per packet.", NULL},
    {"lengths", (getter)batch_get_lengths, (setter)batch_set_lengths,
     "numpy.ndarray of uint64 : bytes of each packet. Assigning to it, or to parts of it, moves the ends of the packets:\n"
     "all of them, or with ValueError none.",
     NULL},
    {"tags", (getter)batch_get_tags, (setter)batch_set_tags,
     "numpy.ndarray of uint64 : `Packet.tag` of each. Assign to it, or to parts of it.", NULL},
    {"redelivered", (getter)batch_get_redelivered, NULL, "numpy.ndarray of bool : `Packet.redelivered` of each.", NULL},
    {"positions", (getter)batch_get_positions, NULL,
     "numpy.ndarray of uint64, or None : `Packet.position` of each; None unless they were taken out of a ring with\n"
     "``redeliver=True``.",
     NULL},
    {"readonly", (getter)batch_get_readonly, NULL, "bool : its packets are `Packet.readonly`; see `Ring.get_many`.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef batch_methods[] = {
    {"scatter", (PyCFunction)batch_scatter, METH_O, batch_scatter_doc},
    {"gather", (PyCFunction)batch_gather, METH_NOARGS, batch_gather_doc},
    {"free", (PyCFunction)batch_free, METH_NOARGS, batch_free_doc},
    {"__enter__", (PyCFunction)batch_enter, METH_NOARGS, "__enter__($self, /)\n--\n\n"},
    {"__exit__", FAST(batch_exit), METH_FASTCALL,
     "__exit__($self, /, *exc_info)\n--\n\nFree the packets, unless they were freed or sent. After an exception, those that came out of\n"
     "a ring with ``redeliver=True`` go back to it, as `Packet.__exit__` has it."},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(batch_doc,
"Packets of one pool that this process holds, handled as one.\n\n"
"Made by `Pool.alloc_many` and `Ring.get_many`. ``batch[i]`` and iteration give `Packet` objects, each a reference of\n"
"its own. So do slices and sums, ``batch[2:5]`` and ``batch + other``, as batches: what is done with one of two batches\n"
"that have a packet leaves the other one its reference. free(), the end of ``with batch:``, or the last reference\n"
"going away gives the packets back.");

static PyMemberDef batch_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct batch_object, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* clang-format off */
static PyType_Slot batch_slots[] = {
    {Py_tp_doc, (void *)batch_doc},
    {Py_tp_dealloc, batch_dealloc},
    {Py_tp_members, batch_members},
    {Py_tp_repr, batch_repr},
    {Py_tp_methods, batch_methods},
    {Py_tp_getset, batch_attributes},
    {Py_tp_iter, PySeqIter_New},
    {Py_sq_length, batch_length},
    {Py_sq_item, batch_item},
    {Py_sq_concat, batch_concat},
    {Py_mp_length, batch_length},
    {Py_mp_subscript, batch_subscript},
    {0, NULL},
};
/* clang-format on */

static PyType_Spec batch_spec = {
    .name = "ssm.PacketBatch",
    .basicsize = offsetof(struct batch_object, handles),
    .itemsize = sizeof(uint64_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = batch_slots,
};

int batch_exec(PyObject *module, struct module_state *state)
{
    state->batch_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &batch_spec, NULL);
    return state->batch_type == NULL ? -1 : PyModule_AddType(module, state->batch_type);
}
