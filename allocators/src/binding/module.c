/* SPDX-License-Identifier: Apache-2.0
 *
 * The module: its types, and what it takes from the package's Python files. State is per interpreter.
 */
#include "binding.h"

void *object_new(PyTypeObject *type)
{
    return ((allocfunc)(uintptr_t)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
}

void object_free(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    ((freefunc)(uintptr_t)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* allocators.<module>.<name>; a new reference. */
static PyObject *import_name(const char *module, const char *name)
{
    PyObject *from = PyImport_ImportModule(module);
    PyObject *what = from == NULL ? NULL : PyObject_GetAttrString(from, name);

    Py_XDECREF(from);
    return what;
}

static int import_errors(struct module_state *state)
{
#define X(name)                                                                          \
    if ((state->errors[ERROR_##name] = import_name("allocators.errors", #name)) == NULL) \
        return -1;
    ERROR_CLASSES(X)
#undef X
    return 0;
}

static int import_node(struct module_state *state)
{
    PyObject *states = import_name("allocators.node", "NodeState");

    if (states == NULL)
        return -1;
    state->node_states[AL_TREE_FREE] = PyObject_GetAttrString(states, "FREE");
    state->node_states[AL_TREE_ALLOCATED] = PyObject_GetAttrString(states, "ALLOCATED");
    Py_DECREF(states);
    state->node_type = import_name("allocators.node", "Node");
    return state->node_states[AL_TREE_FREE] && state->node_states[AL_TREE_ALLOCATED] && state->node_type ? 0 : -1;
}

static int add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type_out)
{
    *type_out = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *type_out == NULL ? -1 : PyModule_AddType(module, *type_out);
}

/* ---- for other extension modules ---- */

static int exported_constraint_of(const void *state, PyObject *constraint, struct al_tree_constraint *out)
{
    if (Py_TYPE(constraint) != ((const struct module_state *)state)->constraint_type) {
        PyErr_Format(PyExc_TypeError, "want a Constraint, not %R", constraint);
        return -1;
    }
    *out = ((struct constraint_object *)constraint)->c;
    return 0;
}

static int exported_constraint_set(const void *state, PyObject *size, PyObject *align, PyObject *policy,
                                   struct al_tree_constraint *out)
{
    return constraint_set(state, out, size, align, policy, NULL, NULL);
}

static int exported_range_of(const void *state, PyObject *range, uint64_t *start_out, uint64_t *end_out)
{
    if (Py_TYPE(range) != ((const struct module_state *)state)->range_type) {
        PyErr_Format(PyExc_TypeError, "want a RangeInclusive, not %R", range);
        return -1;
    }
    *start_out = ((struct range_object *)range)->start;
    *end_out = ((struct range_object *)range)->end;
    return 0;
}

static PyObject *exported_range_new(const void *state, uint64_t start, uint64_t end)
{
    return range_new(state, start, end);
}

static int add_exported(PyObject *module, struct module_state *state)
{
    state->exported = (struct allocators_exported){
        .state = state,
        .constraint_of = exported_constraint_of,
        .constraint_set = exported_constraint_set,
        .range_of = exported_range_of,
        .range_new = exported_range_new,
    };
    PyObject *capsule = PyCapsule_New(&state->exported, ALLOCATORS_EXPORTED, NULL);
    int failed = capsule == NULL ? -1 : PyModule_AddObjectRef(module, "_exported", capsule);
    Py_XDECREF(capsule);
    return failed;
}

static int module_exec(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);

    if (import_errors(state) != 0 || import_node(state) != 0)
        return -1;
    if (add_type(module, &range_spec, &state->range_type) != 0 ||
        add_type(module, &policy_spec, &state->policy_type) != 0 ||
        add_type(module, &constraint_spec, &state->constraint_type) != 0 ||
        add_type(module, &id_spec, &state->id_type) != 0 || add_type(module, &tree_spec, &state->tree_type) != 0 ||
        add_type(module, &address_spec, &state->address_type) != 0 ||
        add_type(module, &pid_spec, &state->pid_type) != 0 ||
        add_type(module, &pid_allocator_spec, &state->pid_allocator_type) != 0 ||
        add_type(module, &rmid_spec, &state->rmid_type) != 0)
        return -1;
    return add_exported(module, state);
}

/* What the state refers to, in one place for traverse and clear. */
#define EACH_REFERENCE(state, DO)                    \
    do {                                             \
        for (int i_ = 0; i_ < ERROR_COUNT; i_++)     \
            DO((state)->errors[i_]);                 \
        DO((state)->node_type);                      \
        DO((state)->node_states[AL_TREE_FREE]);      \
        DO((state)->node_states[AL_TREE_ALLOCATED]); \
        DO((state)->id_type);                        \
        DO((state)->pid_allocator_type);             \
        DO((state)->pid_type);                       \
        DO((state)->tree_type);                      \
        DO((state)->address_type);                   \
        DO((state)->rmid_type);                      \
        DO((state)->range_type);                     \
        DO((state)->policy_type);                    \
        DO((state)->constraint_type);                \
    } while (0)

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct module_state *state = PyModule_GetState(module);

    if (state != NULL)
        EACH_REFERENCE(state, Py_VISIT);
    return 0;
}

static int module_clear(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);

    if (state != NULL)
        EACH_REFERENCE(state, Py_CLEAR);
    return 0;
}

static void module_free(void *module)
{
    (void)module_clear(module);
}

/* The limited API of 3.11 does not name slots that later versions know: they are given by number where the running
 * version is one of those. */
#define SLOT_MULTIPLE_INTERPRETERS 3
#define PER_INTERPRETER_GIL        ((void *)2)

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, SLOT(module_exec)},
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL}, /* SLOT_MULTIPLE_INTERPRETERS from 3.12 on */
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_core",
    .m_doc = "The allocators' C cores as Python objects.",
    .m_size = sizeof(struct module_state),
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void)
{
    PyModuleDef_Slot *last = &slots[sizeof slots / sizeof *slots - 2];

    if (Py_Version >= 0x030C0000)
        *last = (PyModuleDef_Slot){SLOT_MULTIPLE_INTERPRETERS, PER_INTERPRETER_GIL};
    return PyModuleDef_Init(&definition);
}
