/* SPDX-License-Identifier: Apache-2.0
 *
 * The module itself: multi-phase, one state per interpreter, no static Python objects. It may be loaded into
 * sub-interpreters with a GIL of their own, and without the GIL.
 *
 * Types keep their module alive and objects their type, so the state outlives all that points to it. */
#include "fields.h"
#include "service.h"

#include "../../../allocators/src/binding/exported.h"

#include <string.h>

/* Slots that the limited API of 3.11 has no names for; older interpreters refuse them, so they are chosen at run
 * time. The abi3 file is built once and loaded by all versions. */
#define SLOT_MULTIPLE_INTERPRETERS 3
#define PER_INTERPRETER_GIL        ((void *)2)
#define SLOT_GIL                   4
#define GIL_NOT_USED               ((void *)1)

/* ---- functions ------------------------------------------------------------------------------------ */

PyDoc_STRVAR(core_defaults_doc,
"defaults($module, /)\n--\n\n"
"The options of a pool as the build has them.");

static PyObject *core_defaults(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    struct ssm_pool_options options;
    ssm_pool_options_default(&options);
    PyObject *classes = PyDict_New();
    for (uint32_t i = 0; classes != NULL && i < options.class_count; i++)
        counts_add(&classes, options.classes[i].block_size, options.classes[i].block_count);
    if (classes == NULL)
        return NULL;
    return Py_BuildValue("{sNsIsIsIsIsIsK}", "classes", classes, "shards", options.shards, "headroom", options.headroom,
                         "tailroom", options.tailroom, "cache", options.cache, "holders", options.holders,
                         "metadata_bytes", options.metadata_bytes);
}

static const char *const our_names[] = {
#define X(name) #name,
    ERROR_CLASSES(X)
#undef X
#define X(name) "allocators." #name,
        ALLOCATOR_ERRORS(X)
#undef X
#define X(name) #name,
            FUNCTIONS(X)
#undef X
};

PyDoc_STRVAR(core_register_doc,
"register($module, objects, allocators, /)\n--\n\n"
"Take over the Python objects that this module uses, once: a dict with all names of `needs()`, and the module\n"
"allocators._core.");

static PyObject *core_register(PyObject *module, PyObject *args)
{
    struct module_state *state = PyModule_GetState(module);
    PyObject *objects, *allocators;
    if (!PyArg_ParseTuple(args, "O!O:register", &PyDict_Type, &objects, &allocators))
        return NULL;
    PyObject *capsule = PyObject_GetAttrString(allocators, "_exported");
    const struct allocators_exported *exported = capsule != NULL ? PyCapsule_GetPointer(capsule, ALLOCATORS_EXPORTED)
                                                                 : NULL;
    Py_XDECREF(capsule); /* the module has it */
    if (exported == NULL)
        return NULL;
    for (int i = 0; i < OURS_COUNT; i++)
        if (PyDict_GetItemString(objects, our_names[i]) == NULL)
            return PyErr_Format(PyExc_KeyError, "register() needs %s", our_names[i]);
    if (state->exported != NULL)
        return PyErr_Format(PyExc_RuntimeError, "register() was called before");
    for (int i = 0; i < OURS_COUNT; i++)
        state->ours[i] = Py_NewRef(PyDict_GetItemString(objects, our_names[i]));
    state->allocators = Py_NewRef(allocators);
    state->exported = exported;
    RETURN_NONE;
}

static PyObject *core_needs(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    PyObject *names = PyList_New(0);
    for (int i = 0; names != NULL && i < OURS_COUNT; i++)
        list_add(&names, PyUnicode_FromString(our_names[i]));
    return names;
}

static PyObject *core_overflow_flags(PyObject *module, PyObject *words)
{
    uint32_t flags;
    Py_ssize_t bytes = 0;
    const char *text = PyUnicode_Check(words) ? PyUnicode_AsUTF8AndSize(words, &bytes) : "";
    (void)module;
    if (text == NULL)
        return NULL;
    if (strlen(text) != (size_t)bytes || ssm_overflow_of_words(text, &flags) != 0)
        RETURN_NONE;
    return PyLong_FromUnsignedLong(flags);
}

static PyObject *core_overflow_words(PyObject *module, PyObject *number)
{
    char words[SSM_OVERFLOW_SIZE];
    unsigned long flags = PyLong_AsUnsignedLong(number);
    (void)module;
    if (flags == (unsigned long)-1 && PyErr_Occurred() != NULL)
        return NULL;
    return PyUnicode_FromString(ssm_overflow_in_words((uint32_t)flags, words) == 0 ? words : "block");
}

static PyObject *core_overflow_policies(PyObject *module, PyObject *unused)
{
    PyObject *policies = PyDict_New();
    const char *name;
    (void)module, (void)unused;
    for (uint32_t i = 0; policies != NULL && (name = ssm_overflow_name(i)) != NULL; i++) {
        PyObject *text = PyUnicode_FromString(ssm_overflow_text(i));
        if (text == NULL || PyDict_SetItemString(policies, name, text) < 0)
            Py_CLEAR(policies);
        Py_XDECREF(text);
    }
    return policies;
}

static PyMethodDef core_functions[] = {
    {"overflow_flags", core_overflow_flags, METH_O,
     "overflow_flags($module, words, /)\n--\n\nThe flags of a policy for a full ring; None: there is none of that name."},
    {"overflow_words", core_overflow_words, METH_O,
     "overflow_words($module, flags, /)\n--\n\nThe policy for a full ring that a ring with these flags has."},
    {"overflow_policies", core_overflow_policies, METH_NOARGS,
     "overflow_policies($module, /)\n--\n\nWhat each policy makes a put do that finds its ring full."},
    {"needs", core_needs, METH_NOARGS, "needs($module, /)\n--\n\nNames of what register() takes."},
    {"register", core_register, METH_VARARGS, core_register_doc},
    {"own_methods", core_own_methods, METH_O,
     "own_methods($module, type, /)\n--\n\nGive a subclass of Ring or Pool the hot methods of its base as its own: the interpreter has a fast way for\n"
     "methods whose object is exactly of their class."},
    {"defaults", core_defaults, METH_NOARGS, core_defaults_doc},
    {"retire", core_retire, METH_VARARGS,
     "retire($module, opener, name, leaving=None, /)\n--\n\n"
     "Remove the name of a pool that is over; True: it is free now. `leaving` is that pool where this process has left it,\n"
     "or is about to end. `opener` as for Pool._attach()."},
    {"begins", core_begins, METH_VARARGS,
     "begins($module, name, bytes, /)\n--\n\nWhether the object of that name is a file that this user may read, and begins with that."},
    {"locks_of", core_locks_of, METH_O,
     "locks_of($module, name, /)\n--\n\nThe generation by which the lock file of that pool is found; 0: it has none, or cannot be read."},
    {"unlink_locks", core_unlink_locks, METH_VARARGS,
     "unlink_locks($module, generation, unused, /)\n--\n\nRemove a lock file; with `unused`, if nobody uses it."},
    {"sweep", core_sweep, METH_NOARGS,
     "sweep($module, /)\n--\n\nRemove what creators that were killed have left, where files cannot be without a name."},
    {"ending", core_ending, METH_NOARGS,
     "ending($module, /)\n--\n\nThe process is about to end: its status says what becomes of the jobs in hand."},
    {"waker", core_waker, METH_NOARGS, "waker($module, /)\n--\n\nWhat ends a wait_rings() of another thread."},
    {"wake", core_wake, METH_O, "wake($module, waker, /)\n--\n\nThe wait_rings() under way returns, or the next one."},
    {"slow_wait", core_slow_wait, METH_O,
     "slow_wait($module, seconds, /)\n--\n\nTell of waits that last so long; None: of none."},
    {"wait_rings", FAST(core_wait_rings), METH_FASTCALL,
     "wait_rings($module, pairs, timeout, waker, /)\n--\n\nIndices of the pairs (ring, puts) that are worth a try."},
    {"count_ready", FAST(core_count_ready), METH_FASTCALL,
     "count_ready($module, ring, puts, /)\n--\n\nHow many tries are worth it now: packets, or places; more than there can be when each\n"
     "is answered at once."},
    {NULL, NULL, 0, NULL},
};

/* ---- state ----------------------------------------------------------------------------------------- */

static int import_collector(struct module_state *state)
{
    PyObject *gc = PyImport_ImportModule("gc");
    state->slow_ns = UINT64_MAX; /* until ssm/slow.py says otherwise */
    state->collect = gc != NULL ? PyObject_GetAttrString(gc, "collect") : NULL;
    Py_XDECREF(gc);
    return state->collect != NULL ? 0 : -1;
}

static int intern_keywords(struct module_state *state)
{
    static const char *const names[] = {
#define X(name) #name,
        KEYWORDS(X)
#undef X
    };
    for (int i = 0; i < KEYWORD_COUNT; i++)
        if ((state->keywords[i] = PyUnicode_InternFromString(names[i])) == NULL)
            return -1;
    return 0;
}

static int add_constants(PyObject *module)
{
    static const struct {
        const char *name;
        long value;
    } constants[] = {
        {"EPHEMERAL", SSM_EPHEMERAL},
        {"HUGEPAGES", SSM_HUGEPAGES},
        {"PREFAULT", SSM_PREFAULT},
        {"MLOCK", SSM_MLOCK},
        {"APART", POOL_APART},
        {"READONLY", SSM_READONLY},
        {"ONE_PRODUCER", SSM_ONE_PRODUCER},
        {"ONE_CONSUMER", SSM_ONE_CONSUMER},
        {"REDELIVER", SSM_REDELIVER},
        {"OVERFLOW_MASK", SSM_OVERFLOW_MASK},
        {"WAIT_ANYWAY", SSM_WAIT_ANYWAY},
        {"PEERS", SSM_PEERS},
        {"ALIVE_FOR", SSM_ALIVE_FOR},
        {"OWNED", SSM_OWNED},
        {"NAME_SIZE", SSM_NAME_SIZE},
        {"TYPE_SIZE", SSM_TYPE_SIZE},
        {"CHAIN_MAX", SSM_CHAIN_MAX},
        {"CLASS_MAX", SSM_CLASS_MAX},
        {"SHARD_MAX", SSM_SHARD_MAX},
        {"RING_MAX", SSM_RING_MAX},
        {"HOLDER_MAX", SSM_HOLDER_MAX},
        {"CACHE_MAX", SSM_CACHE_MAX},
        {"ARENA_PACKETS_MAX", SSM_ARENA_PACKETS_MAX},
        {"FIRST", SSM_RANGE_FIRST},
        {"LAST", SSM_RANGE_LAST},
        {"EXACT", SSM_RANGE_EXACT},
        {"SERVICE_MAX", SSM_SERVICE_MAX},
        {"PERMITS_MAX", SSM_PERMITS_MAX},
    };
    for (size_t i = 0; i < sizeof(constants) / sizeof(constants[0]); i++)
        if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0)
            return -1;
    return 0;
}

static int add_type(PyObject *module, PyType_Spec *spec, PyTypeObject *base, PyTypeObject **type_out)
{
    *type_out = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, OBJECT(base));
    return *type_out == NULL ? -1 : PyModule_AddType(module, *type_out);
}

static int add_services(PyObject *module, struct module_state *state)
{
    static PyType_Spec *const specs[] = {
        [SSM_SERVICE_IDS] = &ids_spec,
        [SSM_SERVICE_PIDS] = &pids_spec,
        [SSM_SERVICE_RMIDS] = &rmids_spec,
        [SSM_SERVICE_ADDRESSES] = &addresses_spec,
        [SSM_SERVICE_SEMAPHORE] = &semaphore_spec,
        [SSM_SERVICE_BOARD] = &board_spec,
    };
    _Static_assert(sizeof(specs) / sizeof(*specs) == SSM_SERVICE_KIND_MAX + 1, "every kind has a type");
    PyTypeObject **types = state->service_types;
    if (add_type(module, &service_spec, NULL, &types[SSM_SERVICE_NONE]) < 0)
        return -1;
    for (uint32_t kind = SSM_SERVICE_NONE + 1; kind <= SSM_SERVICE_KIND_MAX; kind++)
        if (add_type(module, specs[kind], types[SSM_SERVICE_NONE], &types[kind]) < 0)
            return -1;
    return add_type(module, &pid_spec, NULL, &state->pid_type);
}

static int core_exec(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    if (import_collector(state) < 0 || intern_keywords(state) < 0 || add_constants(module) < 0)
        return -1;
    if (pool_exec(module, state) < 0 || packet_exec(module, state) < 0 || batch_exec(module, state) < 0)
        return -1;
    return ring_exec(module, state) < 0 ? -1 : add_services(module, state);
}

static int core_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct module_state *state = PyModule_GetState(module);
    Py_VISIT(state->pool_type);
    Py_VISIT(state->packet_type);
    Py_VISIT(state->span_type);
    Py_VISIT(state->batch_type);
    Py_VISIT(state->ring_type);
    Py_VISIT(state->pid_type);
    for (int i = 0; i <= SSM_SERVICE_KIND_MAX; i++)
        Py_VISIT(state->service_types[i]);
    Py_VISIT(state->allocators);
    Py_VISIT(state->collect);
    for (int i = 0; i < OURS_COUNT; i++)
        Py_VISIT(state->ours[i]);
    return 0;
}

static int core_clear(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    packet_clear_spare(state);
    Py_CLEAR(state->pool_type);
    Py_CLEAR(state->packet_type);
    Py_CLEAR(state->span_type);
    Py_CLEAR(state->batch_type);
    Py_CLEAR(state->ring_type);
    Py_CLEAR(state->pid_type);
    for (int i = 0; i <= SSM_SERVICE_KIND_MAX; i++)
        Py_CLEAR(state->service_types[i]);
    Py_CLEAR(state->allocators);
    Py_CLEAR(state->collect);
    for (int i = 0; i < OURS_COUNT; i++)
        Py_CLEAR(state->ours[i]);
    for (int i = 0; i < KEYWORD_COUNT; i++)
        Py_CLEAR(state->keywords[i]);
    return 0;
}

static void core_free(void *module)
{
    core_clear(module);
}

/* ---- definition ------------------------------------------------------------------------------------ */

static PyModuleDef_Slot slots_311[] = {
    {Py_mod_exec, core_exec},
    {0, NULL},
};

static PyModuleDef_Slot slots_312[] = {
    {Py_mod_exec, core_exec},
    {SLOT_MULTIPLE_INTERPRETERS, PER_INTERPRETER_GIL},
#ifdef Py_GIL_DISABLED
    {SLOT_GIL, GIL_NOT_USED},
#endif
    {0, NULL},
};

PyDoc_STRVAR(core_doc, "The C side of ssm; import ssm instead.");

#define DEFINITION(slots)                                                   \
    {                                                                       \
        PyModuleDef_HEAD_INIT,       .m_name = "ssm._core",                 \
        .m_doc = core_doc,           .m_size = sizeof(struct module_state), \
        .m_methods = core_functions, .m_slots = slots,                      \
        .m_traverse = core_traverse, .m_clear = core_clear,                 \
        .m_free = core_free,                                                \
    }
static PyModuleDef definition_311 = DEFINITION(slots_311);
static PyModuleDef definition_312 = DEFINITION(slots_312);

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(Py_Version >= 0x030C0000 ? &definition_312 : &definition_311);
}
