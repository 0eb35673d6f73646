/* SPDX-License-Identifier: Apache-2.0
 *
 * The extension module ssm._core: the core's pools, packets, batches and rings as Python objects. What is not hot
 * is Python (ssm/pool.py, ssm/stats.py); nothing here knows the layout of a segment.
 *
 * Builds: with the GIL, the limited API of 3.11 (one abi3 file for all later versions); without it, the full API.
 *
 * Threads. With the GIL, the GIL guards everything here, and serialises the calls into the core (SSM_SERIAL): only
 * a sleeping call lets other threads run, see wait_begin(). Without it, the critical section of a Pool (POOL_LOCK)
 * does the same for the Pool, its Packets, PacketBatches and Rings: their fields, and each call into the core but for
 * those that wait or are bracketed by ring_begin(), whom `calls` protects. The bytes of a packet are pinned while they
 * are copied (packet_open), so that a close cannot unmap them; copying itself needs no lock.
 *
 * Ownership: Packet, PacketBatch and Ring hold their Pool; a Span holds its Packet; views and arrays hold a Span or
 * a Packet. Nothing points the other way, so none of them needs the cycle collector.
 */
#ifndef SSM_BINDING_H
#define SSM_BINDING_H

#include <pyconfig.h>
#if !defined(Py_GIL_DISABLED) && !defined(Py_LIMITED_API)
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <stdbool.h>
#include <stdint.h>

#include "../ssm.h"

#ifdef Py_GIL_DISABLED
#define POOL_LOCK(pool) Py_BEGIN_CRITICAL_SECTION(pool);
#define POOL_UNLOCK()   Py_END_CRITICAL_SECTION();
#else
#define POOL_LOCK(pool) {
#define POOL_UNLOCK()   }
#endif

/* result = what the core answers to `call`, or that the pool is closed. */
#define POOL_CALL(pool, result, call)                       \
    do {                                                    \
        POOL_LOCK(pool)                                     \
        (result) = (pool)->closed ? -SSM_E_CLOSED : (call); \
        POOL_UNLOCK()                                       \
    } while (0)

#define OBJECT(pointer) ((PyObject *)(pointer)) /* the limited API's inline functions do not cast */
/* Py_RETURN_NONE of newer headers does not count the reference, and the abi3 file is loaded by 3.11 as well. */
#define RETURN_NONE    return Py_NewRef(Py_None)
#define FAST(function) ((PyCFunction)(void (*)(void))(function)) /* METH_FASTCALL, with or without METH_KEYWORDS */

struct allocators_exported; /* allocators/src/binding/exported.h */
struct pool_object;
struct packet_object;
struct ring_object;

/* ---- module state ------------------------------------------------------------------------------- */

/* Python objects that C uses. ssm/registered.py hands them over once, by these names: classes of ssm/errors.py; */
/* clang-format off */
#define ERROR_CLASSES(X) \
    X(SSMError) X(PoolExhausted) X(PacketTooLarge) X(StaleHandle) X(RingFull) X(RingEmpty) X(RingShutDown) \
    X(RingBusy) X(RingMismatch) X(ProducersGone) X(ConsumersGone) X(ServiceMismatch) X(HoldersExhausted) X(MetadataExhausted) X(LayoutMismatch) X(CorruptionError) \
    X(PoolAbandoned) X(QuotaExceeded)
/* classes of allocators/errors.py; */
#define ALLOCATOR_ERRORS(X) \
    X(Overflow) X(OutOfRange) X(AlreadyReleased) X(NeverAllocated) X(ResourceNotAvailable) X(InvalidStateTransition) \
    X(CorruptionError)
/* functions. import_numpy imports numpy, column makes a Column of values, a batch and a name, tell_slow warns of a wait. */
#define FUNCTIONS(X) X(import_numpy) X(column) X(tell_slow)
enum ours {
#define X(name) ERROR_##name,
    ERROR_CLASSES(X)
#undef X
#define X(name) ALLOCATOR_##name,
    ALLOCATOR_ERRORS(X)
#undef X
#define X(name) FUNCTION_##name,
    FUNCTIONS(X)
#undef X
    OURS_COUNT
};

/* Keyword names of the functions that parse them by hand; interned, so that a pointer comparison finds them. */
#define KEYWORDS(X) \
    X(size) X(count) X(timeout) X(pkt) X(batch) X(data) X(n) X(block) X(keep) X(dtype) X(shape) X(immediate) X(now) X(rmid) \
    X(readonly) X(alignment) X(policy) X(done) X(at_least)
enum keyword {
#define X(name) KEYWORD_##name,
    KEYWORDS(X)
#undef X
    KEYWORD_COUNT
};
/* clang-format on */

struct module_state {
    PyTypeObject *pool_type, *packet_type, *span_type, *batch_type, *ring_type;
    PyTypeObject *service_types[SSM_SERVICE_KIND_MAX + 1], *pid_type; /* [SSM_SERVICE_NONE]: the base */
    PyObject     *ours[OURS_COUNT];
    PyObject     *allocators; /* allocators._core, which must stay for `exported` to be valid */
    const struct allocators_exported *exported;
    PyObject                         *keywords[KEYWORD_COUNT];
    PyObject                         *collect;     /* gc.collect */
    uint64_t                          slow_ns;     /* a wait that lasts so long is told of; UINT64_MAX: none */
    bool                              numpy_ready; /* numpy was imported in this interpreter */
    struct packet_object             *spare; /* dead Packets for reuse, linked through `pool`; unused without the GIL */
    uint32_t                          spare_count;
};

/* ---- errors (errors.c): all return NULL with an exception set ------------------------------------ */

/* What the core answered; `pool` may lack its core (while it is being made). Keeps an exception that a signal
 * handler raised. */
PyObject *raise_code(const struct pool_object *pool, int code);
PyObject *raise_closed(const struct pool_object *pool);
/* class(errnum, text): for classes that are OSErrors. */
PyObject *raise_os(PyObject *class, int errnum, const char *format, ...);

/* ---- arguments (arguments.c): 0, or -1 with an exception set -------------------------------------- */

/* One function's parameters, for arguments_bind(). */
struct parameters {
    const char *function;
    uint8_t     names[5]; /* enum keyword */
    uint8_t     count, positional, required;
};
int arguments_bind_slowly(const struct module_state *state, const struct parameters *parameters, PyObject *const *args,
                          Py_ssize_t nargs, PyObject *kwnames, PyObject **out);

/* Sorts vectorcall arguments into out[count]; what was not given is NULL. Inline for calls without keywords: there the
 * compiler knows `parameters`. */
static inline int arguments_bind(const struct module_state *state, const struct parameters *parameters,
                                 PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject **out)
{
    if (kwnames != NULL || nargs < parameters->required || nargs > parameters->positional)
        return arguments_bind_slowly(state, parameters, args, nargs, kwnames, out);
    for (int i = 0; i < parameters->count; i++)
        out[i] = i < nargs ? args[i] : NULL;
    return 0;
}
/* For functions that take exactly so many, by position. */
int arguments_are(const char *function, Py_ssize_t nargs, Py_ssize_t count);
int argument_timeout_given(PyObject *value, int64_t *ns_out);
int argument_flag_given(PyObject *value, bool *flag_out);

/* Seconds, or None, as nanoseconds. NULL leaves *ns_out alone. */
static inline int argument_timeout(PyObject *value, int64_t *ns_out)
{
    return value == NULL ? 0 : argument_timeout_given(value, ns_out);
}

/* NULL leaves *flag_out alone. */
static inline int argument_flag(PyObject *value, bool *flag_out)
{
    return value == NULL ? 0 : argument_flag_given(value, flag_out);
}

/* `block` and `timeout` as queue.Queue has them; either may be NULL. */
static inline int argument_wait(PyObject *block, PyObject *timeout, int64_t *ns_out)
{
    bool blocking = true;
    if (block != Py_True && argument_flag(block, &blocking) < 0)
        return -1;
    *ns_out = blocking ? SSM_FOREVER : 0;
    return blocking ? argument_timeout(timeout, ns_out) : 0;
}

/* An index that is an int, and no larger than a packet may be: then no exception can be meant by -1. */
static inline bool argument_is_index(PyObject *value, Py_ssize_t *index_out)
{
    if (!PyLong_CheckExact(value))
        return false;
    *index_out = PyLong_AsSsize_t(value);
    if (*index_out != -1 || PyErr_Occurred() == NULL)
        return true;
    PyErr_Clear();
    return false;
}

/* An integer as uint64_t: 0, -1 error, or 1: it is below 0, 2: above 2^64 - 1. */
int argument_u64(PyObject *value, uint64_t *out);

/* ---- Pool (pool.c) ------------------------------------------------------------------------------ */

/* What PoolExhausted says of the pool, see exhausted.c. */
struct exhausted_facts {
    PyObject *latest;    /* or NULL: not asked for yet */
    uint64_t  asked_ns;  /* when it was asked for last */
    int64_t   credit_ns; /* time for further passes; below 0: it is overdrawn */
};

/* When the collector may run for an exhausted pool, see garbage.c. */
struct collector {
    uint64_t asked_ns, ran_ns; /* when it was last asked for, and when it last ran */
    int64_t  credit_ns;        /* for runs that free no block; below 0: it is overdrawn */
    uint64_t runs;
};

struct pool_object {
    PyObject_HEAD
    PyObject            *weakrefs;
    struct module_state *state;
    struct ssm_pool     *core; /* NULL while it is being made, and once it is closed and nothing needs the memory */
    const uint32_t      *era;  /* of the core: changes with every fork */
    bool                 closed;
    bool                 readonly;
    uint32_t             exports;  /* views into the memory, of all packets; those that a fork left here as well */
    uint32_t             calls;    /* calls that sleep in the core */
    struct ring_object  *rings;    /* whose core is not closed */
    uint32_t             last_era; /* what `era` points to when the core is gone */
    int      newborn; /* its file while it has no name yet; of one that gets none, by which others open it; else -1 */
    bool     apart;   /* it gets no name: its file is in no directory */
    uint64_t device, inode;           /* of the file that got its name from here, or that gets none; 0: none did */
    struct pool_object    *next_kept; /* of ending.c */
    bool                   kept;
    PyObject              *name; /* "/lab" */
    struct ssm_pool_info   info;
    struct exhausted_facts facts;
    struct collector       collector;
};

#define POOL_APART (UINT32_C(1) << 16) /* a flag of _create and _attach, beside those of ssm.h: see `apart` */
/* The descriptor by which others open a pool that is apart; -1: it has a name, or the program has closed the descriptor. */
int pool_descriptor(const struct pool_object *self);

int pool_exec(PyObject *module, struct module_state *state);

/* ---- what a Pool holds (pool_hold.c) ---------------------------------------------------------------- */

/* Of ssm.Pool and its like, which are Python classes: the module is known to one of their bases. */
struct module_state *state_of(PyTypeObject *type);
/* `object`, if it is a Pool; NULL with an exception set. `type`: a class of this module or one based on it. */
struct pool_object *pool_of(PyTypeObject *type, PyObject *object);
/* A name from shared memory: another process wrote it. */
PyObject *name_object(const char *name);
/* Unmaps the memory of a closed pool as soon as no view, no sleeping call and no ring needs it. With POOL_LOCK. */
void pool_settle(struct pool_object *pool);

/* ---- allocating (pool_alloc.c, exhausted.c) ----------------------------------------------------------- */

extern const char pool_alloc_doc[], pool_alloc_many_doc[], pool_packet_doc[];
PyObject *pool_alloc(struct pool_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *pool_alloc_many(struct pool_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *pool_packet(struct pool_object *self, PyObject *value);
uint64_t pool_max_size(const struct pool_object *pool);
PyObject *pool_raise_exhausted(struct pool_object *pool, uint64_t size, uint64_t count);
/* Takes over `size` and `count`, which may be NULL. */
PyObject *exhausted_raise(struct pool_object *pool, PyObject *size, PyObject *count);
PyObject *pool_raise_too_large(struct pool_object *pool, uint64_t size);

/* ---- what a pool tells (pool_stats.c) ------------------------------------------------------------------ */

PyObject *pool_shard_stats(struct pool_object *self, PyObject *args);
PyObject *pool_class_stats(struct pool_object *self, PyObject *args);
PyObject *pool_arena_stats(struct pool_object *self, PyObject *unused);
PyObject *pool_ring_stats(struct pool_object *self, PyObject *unused);
PyObject *pool_unlink_ring(struct pool_object *self, PyObject *name);
PyObject *pool_service_stats(struct pool_object *self, PyObject *unused);
PyObject *pool_holder_list(struct pool_object *self, PyObject *unused);
PyObject *pool_reap(struct pool_object *self, PyObject *unused);
/* All holder slots, for PyMem_Free(); or NULL with an exception set. */
struct ssm_holder_info *pool_holders(struct pool_object *pool);
PyObject *pool_set_quota(struct pool_object *pool, PyObject *value);
PyObject *pool_set_label(struct pool_object *pool, PyObject *args);
PyObject *pool_usage(struct pool_object *pool, PyObject *unused);

/* ---- taking blocks (garbage.c) ------------------------------------------------------------------- */

/* `count` blocks for packets of `size` bytes, or an error. Packets in garbage come back before it waits or is refused.
 * `ring_closed`: a close of that ring ends the wait; or NULL. */
int pool_take(struct pool_object *pool, const bool *ring_closed, uint64_t size, uint32_t count, int64_t timeout_ns,
              uint64_t *handles_out);
/* ---- life of a Pool (life.c) --------------------------------------------------------------------- */

PyObject *pool_create(PyTypeObject *type, PyObject *args);
PyObject *pool_publish(struct pool_object *self, PyObject *args);
PyObject *pool_discard(struct pool_object *self, PyObject *unused);
PyObject *pool_attach(PyTypeObject *type, PyObject *args);
extern const char pool_close_doc[];
PyObject *pool_close(struct pool_object *self, PyObject *unused);
PyObject *core_retire(PyObject *module, PyObject *args);
PyObject *core_begins(PyObject *module, PyObject *args);
PyObject *core_sweep(PyObject *module, PyObject *unused);
PyObject *core_locks_of(PyObject *module, PyObject *name);
PyObject *core_unlink_locks(PyObject *module, PyObject *args);

/* ---- sleeping (wait.c) -------------------------------------------------------------------------- */

extern const struct ssm_sleep_hooks wait_hooks; /* give up the GIL, answer signals */

/* What a call waits for, as ssm/slow.py tells of it. */
struct wait_subject {
    const char *what;   /* "alloc", "put", "get", "join", "acquire", "wait"; NULL: nobody is told */
    PyObject   *object; /* the Pool, the Ring or the service; of "wait", the tuple of pairs. The caller has it */
    uint64_t    size;   /* of "alloc": bytes of each packet */
    uint32_t    count;  /* of "alloc" and "put": packets */
};

/* Brackets a core call that may sleep, so that a close in another thread ends it: the call returns -EINTR then, and
 * the memory stays until it has. wait_begin(): false when the pool is closed already. */
struct wait_scope {
    struct wait_scope  *outer;
    struct pool_object *pool;
    const bool         *ring_closed;                  /* or NULL */
    const struct watch *watch;                        /* the rings that are waited for, or NULL; */
    bool (*watch_is_open)(const struct watch *watch); /* false: one of them was closed */
    int (*look)(
        struct pool_object *pool); /* or NULL: called at each look while it sleeps; below 0: with an exception set */
    bool                closing;   /* it is the close itself: that the pool is closed does not end it */
    struct wait_subject subject;
    uint64_t            since_ns; /* of its first wake-up; 0: it has not slept yet */
    bool                told;     /* it was slow, and was told of */
};
bool wait_begin(struct wait_scope *scope, struct pool_object *pool, const bool *ring_closed);
void wait_begin_close(struct wait_scope *scope, struct pool_object *pool); /* with POOL_LOCK */
void wait_end(struct wait_scope *scope);
PyObject *core_slow_wait(PyObject *module, PyObject *seconds);

/* Brackets a core call that works for long without the GIL; the hooks may run in it. */
void wait_release_gil(void);
void wait_take_gil(void);

/* ---- Packet and Span (packet_hold.c, packet.c) ----------------------------------------------------------------- */

/* I1  LIVE: the object has one reference of the core's.
 * I2  FREED, SENT or RETURNED with exports > 0: it has the reference still, pinned; the last export gives it back. The delivery that
 *     it belonged to has ended.
 *     SENT while its put sleeps: the call has the reference (ring_put.c). LINKED: the chain has it.
 * I3  exports > 0: the reference is pinned.
 * An object from before a fork has nothing: `era` tells. */
enum packet_status { PACKET_EMPTY, PACKET_LIVE, PACKET_FREED, PACKET_SENT, PACKET_LINKED, PACKET_RETURNED };

struct packet_object {
    PyObject_HEAD
    struct module_state *state;
    struct pool_object  *pool;
    uint64_t             handle;
    uint64_t             delivery; /* that the reference belongs to, or SSM_NO_DELIVERY */
    uint32_t             era;
    uint32_t             exports;
    uint32_t             status;   /* enum packet_status */
    bool                 readonly; /* views of it do not write; for its life */
};

int packet_exec(PyObject *module, struct module_state *state);
void packet_keep_spare(struct packet_object *packet); /* of one that is over */
void packet_clear_spare(struct module_state *state);

struct packet_object *packet_new(struct pool_object *pool); /* EMPTY */
/* EMPTY -> LIVE: takes over a reference, and what delivery it belongs to. */
void packet_adopt(struct packet_object *packet, uint64_t handle, uint64_t delivery);
PyObject *packet_raise_stale(const struct packet_object *packet);
PyObject *packet_raise(const struct packet_object *packet, int code); /* what the core answered */
/* LIVE -> FREED: its delivery ends, and the reference goes back unless views need it. False: it was not live. */
bool packet_finish(struct packet_object *packet);
void packet_return(struct packet_object *packet); /* LIVE -> RETURNED: its delivery goes back to the ring */
/* LIVE -> SENT. kept: the reference did not go with the packet, it is given back unless views need it.
 * With POOL_LOCK. */
void packet_sent(struct packet_object *packet, bool kept);

/* Gives the delivery that references belong to back to its ring, packet by packet; what has ended stays so. What cannot go
 * back now, because a stopped process is in the way, does so when this process ends: false, and the references are needed. */
bool packets_return(struct pool_object *pool, const uint64_t *handles, uint32_t count, uint64_t delivery);

/* With POOL_LOCK. */
static inline bool packet_is_live(const struct packet_object *packet)
{
    return packet->status == PACKET_LIVE && !packet->pool->closed && packet->era == *packet->pool->era;
}

static inline bool packet_check(const struct packet_object *packet)
{
    bool live;
    POOL_LOCK(packet->pool)
    live = packet_is_live(packet);
    POOL_UNLOCK()
    return live;
}

/* One more view of the packet; `window_out` is what it covers. -1 with an exception set. */
int packet_export(struct packet_object *packet, struct ssm_packet *window_out);
void packet_unexport(struct packet_object *packet);

int packet_raise_readonly(PyObject *class); /* -1 */

/* For a look or a copy that runs no Python code in between. */
#ifdef Py_GIL_DISABLED
static inline int packet_open(struct packet_object *packet, struct ssm_packet *window_out)
{
    return packet_export(packet, window_out);
}
#define packet_shut packet_unexport
#else
int packet_raise_unopened(struct packet_object *packet, int result); /* -1 */

static inline int packet_open(struct packet_object *packet, struct ssm_packet *window_out)
{
    int result = packet_is_live(packet) ? ssm_packet_view(packet->pool->core, packet->handle, window_out)
                                        : -SSM_E_STALE;
    return result == 0 ? 0 : packet_raise_unopened(packet, result);
}

static inline void packet_shut(struct packet_object *packet)
{
    (void)packet;
}
#endif

/* A pinned stretch of a packet's bytes: what numpy arrays and partial memoryviews keep alive. */
struct span_object {
    PyObject_HEAD
    struct packet_object *packet;
    uint8_t              *data;
    Py_ssize_t            length;
};
struct span_object *span_new(struct packet_object *packet); /* of the whole window */
extern PyType_Spec span_spec;

/* Packet.chain (chain.c). */
PyObject *packet_get_chain(struct packet_object *self, void *unused);
int packet_set_chain(struct packet_object *self, PyObject *value, void *unused);

/* ---- the end of the process (ending.c) ------------------------------------------------------------- */

/* An object goes that has references of a delivery: true, and they stay, for the process is about to end. With POOL_LOCK. */
bool deliveries_stay(struct pool_object *pool, const uint64_t *handles, uint32_t count, uint64_t delivery);
void pool_keep(struct pool_object *pool);
PyObject *core_ending(PyObject *module, PyObject *unused);
PyObject *pool_has_jobs(struct pool_object *pool, PyObject *unused);
PyObject *pool_return_jobs(struct pool_object *pool, PyObject *unused);

/* ---- PacketBatch (batch.c) ---------------------------------------------------------------------- */

/* Like a Packet, with `count` references; nothing views its memory for longer than a call. */
struct batch_object {
    PyObject_VAR_HEAD
    PyObject            *weakrefs;
    struct module_state *state;
    struct pool_object  *pool;
    uint64_t             delivery; /* that its references belong to, or SSM_NO_DELIVERY */
    uint32_t             era;
    uint32_t             status; /* enum packet_status */
    uint32_t             count;
    bool                 readonly; /* so are the Packets made from it */
    bool                 mixed; /* a sum: each reference has a delivery of its own, in the second half of `handles` */
    uint64_t             handles[];
};

/* One delivery for all, or one for each packet if it is mixed. */
static inline const uint64_t *batch_deliveries(struct batch_object *batch)
{
    return batch->mixed ? batch->handles + Py_SIZE(OBJECT(batch)) / 2 : &batch->delivery;
}

int batch_exec(PyObject *module, struct module_state *state);
struct batch_object *batch_new(struct pool_object *pool, uint32_t room); /* EMPTY */
void batch_adopt(struct batch_object *batch, uint32_t count,
                 uint64_t delivery); /* handles[] is filled: EMPTY -> LIVE */
PyObject *batch_raise_stale(const struct batch_object *batch);
void batch_sent(struct batch_object *batch, bool kept); /* as packet_sent() */
int batch_finish(struct batch_object *batch);           /* LIVE -> FREED, or what the core answers */

/* With POOL_LOCK. */
static inline bool batch_is_live(const struct batch_object *batch)
{
    return batch->status == PACKET_LIVE && !batch->pool->closed && batch->era == *batch->pool->era;
}

static inline bool batch_check(const struct batch_object *batch)
{
    bool live;
    POOL_LOCK(batch->pool)
    live = batch_is_live(batch);
    POOL_UNLOCK()
    return live;
}

/* ---- Ring (ring_hold.c, ring_put.c, ring_get.c, ring.c) ------------------------------------------------------ */

struct ring_object {
    PyObject_HEAD
    PyObject            *weakrefs;
    struct module_state *state;
    struct pool_object  *pool;
    struct ssm_ring     *core; /* NULL once closed */
    PyObject            *name;
    PyObject            *reference;    /* weak, to this Ring: what find_open() comes by a strong one with */
    struct ring_object  *next, **link; /* in pool->rings */
    uint32_t             calls;        /* calls in the core: a close waits for the last of them */
    bool                 closed;
};

PyObject *core_own_methods(PyObject *module, PyObject *type);
int ring_exec(PyObject *module, struct module_state *state);
void ring_link(struct ring_object *ring); /* into pool->rings. With POOL_LOCK */
/* Closes the core's ring, unless a call is in it. With POOL_LOCK. */
void ring_settle(struct ring_object *ring);
/* Brackets the calls into the core's ring: it stays while one is in it. false with an exception set. */
bool ring_begin(struct ring_object *ring);
void ring_end(struct ring_object *ring);

/* ---- several rings, and awaiting (ready.c) --------------------------------------------------------- */

PyObject *core_waker(PyObject *module, PyObject *unused);
PyObject *core_wake(PyObject *module, PyObject *capsule);
PyObject *core_wait_rings(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *core_count_ready(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

/* ---- looking at packets (peek.c) ------------------------------------------------------------------- */

PyObject *pool_peek_ring(struct pool_object *pool, PyObject *args);
PyObject *pool_peek_packet(struct pool_object *pool, PyObject *args);
PyObject *pool_packet_list(struct pool_object *pool, PyObject *unused);
PyObject *pool_packet_holders(struct pool_object *pool, PyObject *handle);

/* ---- numpy (array.c) ---------------------------------------------------------------------------- */

/* A view of the packet's payload; dtype and shape may be NULL. */
PyObject *array_of_packet(struct packet_object *packet, PyObject *dtype, PyObject *shape);
/* A read-only uint64 array over memory that `owner` keeps alive. */
PyObject *array_over_u64(struct module_state *state, PyObject *owner, const uint64_t *values, uint32_t count);
/* A new uint64 array; *values_out is its memory, for the caller to fill. */
PyObject *array_new_u64(struct module_state *state, uint32_t count, uint64_t **values_out);
/* The same of bools, one byte each. */
PyObject *array_new_bool(struct module_state *state, uint32_t count, uint8_t **values_out);
/* A new uint8 array of that shape. */
PyObject *array_new_rows(struct module_state *state, uint32_t rows, uint64_t row_bytes, uint8_t **bytes_out);
/* A non-negative integer for all, or a sequence of `count` of them. -1 with an exception set. */
int array_read_u64(struct module_state *state, PyObject *value, const char *what, uint32_t count, uint64_t *values_out);

#endif
