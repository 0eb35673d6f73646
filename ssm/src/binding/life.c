/* SPDX-License-Identifier: Apache-2.0
 *
 * How a Pool begins and ends: made without a name and named when it is ready, attached to, retired.
 *
 * Signals. A Python signal handler may raise between any two calls into C. So each call here either has done nothing, or
 * leaves what it has opened to an object that gives it back: a descriptor is never a number in Python's hands. */
#include "binding.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef Py_GIL_DISABLED
#define ATTACH_FLAGS 0u
#else
#define ATTACH_FLAGS SSM_SERIAL
#endif
#define COMFORTS (SSM_HUGEPAGES | SSM_PREFAULT | SSM_MLOCK)

static struct pool_object *pool_new(PyTypeObject *type, PyObject *name)
{
    struct module_state *state = state_of(type);
    if (state == NULL)
        return NULL;
    struct pool_object *self = (struct pool_object *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL)
        return NULL;
    self->state = state;
    self->newborn = -1;
    Py_INCREF(name);
    self->name = name;
    return self;
}

/* By which the core may open the file again, in a bytes object that owns it; NULL with an exception set. */
static PyObject *path_of(PyObject *name, struct ssm_attach_options *attach)
{
    PyObject *path = PyUnicode_FromFormat("/dev/shm%U", name), *bytes = NULL;
    if (path != NULL)
        bytes = PyUnicode_EncodeFSDefault(path);
    Py_XDECREF(path);
    attach->path = bytes != NULL ? PyBytes_AsString(bytes) : NULL;
    return bytes;
}

static void raise_memlock(const struct pool_object *self, int64_t bytes)
{
    struct rlimit limit = {0};
    getrlimit(RLIMIT_MEMLOCK, &limit);
    raise_os(
        PyExc_OSError, ENOMEM,
        "pool %R: mlock=True would lock its %lld bytes of memory, this process may lock %llu (RLIMIT_MEMLOCK, `ulimit -l`): "
        "raise the limit (LimitMEMLOCK= of systemd, --ulimit memlock= of docker; it takes CAP_SYS_RESOURCE to go beyond "
        "%llu), or do without mlock=",
        self->name, (long long)bytes, (unsigned long long)limit.rlim_cur, (unsigned long long)limit.rlim_max);
}

/* Takes over a made attachment, or raises. */
static PyObject *pool_finish(struct pool_object *self, int result, int64_t bytes)
{
    if (result == 0) {
        self->era = ssm_pool_era(self->core);
        result = ssm_pool_info(self->core, &self->info);
    }
    if (result == 0)
        return OBJECT(self);
    if (result == -SSM_E_MEMLOCK)
        raise_memlock(self, bytes);
    else
        raise_code(self, result);
    Py_DECREF(OBJECT(self));
    return NULL;
}

/* ---- create ------------------------------------------------------------------------------------------ */

static int parse_classes(PyObject *classes, struct ssm_pool_options *options)
{
    Py_ssize_t count = PyTuple_Size(classes);
    if (count < 1 || count > SSM_CLASS_MAX) {
        if (count >= 0)
            PyErr_Format(PyExc_ValueError, "classes must have 1 .. %d sizes, not %zd", SSM_CLASS_MAX, count);
        return -1;
    }
    options->class_count = (uint32_t)count;
    for (Py_ssize_t i = 0; i < count; i++) {
        unsigned long long size;
        unsigned int blocks;
        if (!PyArg_ParseTuple(PyTuple_GetItem(classes, i), "KI", &size, &blocks))
            return -1;
        options->classes[i] = (struct ssm_class_spec){.block_size = size, .block_count = blocks};
    }
    return 0;
}

PyObject *pool_create(PyTypeObject *type, PyObject *args)
{
    struct ssm_pool_options options = {0};
    struct ssm_attach_options attach = {.hooks = wait_hooks};
    unsigned int flags, mode;
    unsigned long long metadata_bytes, arena_bytes, grow_bytes;
    PyObject *name, *classes;
    if (!PyArg_ParseTuple(args, "UO!IIIIIKKKIII:_create", &name, &PyTuple_Type, &classes, &options.shards,
                          &options.headroom, &options.tailroom, &options.cache, &options.holders, &metadata_bytes,
                          &arena_bytes, &grow_bytes, &options.arena_packets, &flags, &mode) ||
        parse_classes(classes, &options) < 0)
        return NULL;
    options.metadata_bytes = metadata_bytes;
    options.arena_bytes = arena_bytes;
    options.grow_bytes = grow_bytes;
    options.flags = flags & SSM_EPHEMERAL;
    options.locks_mode = ssm_locks_mode(mode);
    attach.flags = ATTACH_FLAGS | (flags & COMFORTS);
    PyObject *path = path_of(name, &attach); /* where it will be */
    struct pool_object *self = path != NULL ? pool_new(type, name) : NULL;
    if (self != NULL) {
        wait_release_gil(); /* reserving memory takes 0.4 s a GiB */
        self->apart = (flags & POOL_APART) != 0;
        self->newborn = self->apart ? ssm_object_new_apart() : ssm_object_new();
        int result = self->newborn < 0 ? self->newborn : ssm_pool_create(self->newborn, &options, &attach, &self->core);
        wait_take_gil();
        self = (struct pool_object *)pool_finish(self, result, ssm_pool_bytes(&options));
    }
    Py_XDECREF(path);
    return OBJECT(self);
}

static int publish(struct pool_object *self, const char *name, unsigned int mode, uid_t uid, gid_t gid)
{
    struct stat st;
    const struct ssm_name_options options = {
        .size = sizeof options,
        .mode = mode,
        .flags = SSM_MODE_ZERO | (uid != (uid_t)-1 ? SSM_GIVE_USER : 0u) | (gid != (gid_t)-1 ? SSM_GIVE_GROUP : 0u),
        .uid = uid,
        .gid = gid,
    };
    if (fstat(self->newborn, &st) != 0)
        return -errno;
    self->device = st.st_dev; /* before anybody can see it */
    self->inode = st.st_ino;
    int result = ssm_pool_publish(self->core, self->newborn, self->apart ? NULL : name, &options);
    if (result != 0)
        self->inode = 0;
    return result;
}

PyObject *pool_publish(struct pool_object *self, PyObject *args)
{
    unsigned int mode;
    long long uid, gid;
    if (!PyArg_ParseTuple(args, "ILL:_publish", &mode, &uid, &gid))
        return NULL;
    PyObject *name = PyUnicode_EncodeFSDefault(self->name);
    if (name == NULL)
        return NULL;
    const char *bytes = PyBytes_AsString(name);
    int result = publish(self, bytes, mode, (uid_t)uid, (gid_t)gid);
    if (result != 0) {
        Py_DECREF(name);
        return raise_code(self, result);
    }
    if (!self->apart) {
        close(self->newborn);
        self->newborn = -1;
    }
    Py_DECREF(name);
    RETURN_NONE;
}

/* It leads to the file that got it from here; nobody else's has that inode while the pool is attached. */
static void take_name_back(struct pool_object *self, const char *name)
{
    struct stat st;
    int fd = ssm_object_open(name, 0);
    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0 && st.st_dev == self->device && st.st_ino == self->inode)
        ssm_object_unlink(fd, name);
    close(fd);
}

PyObject *pool_discard(struct pool_object *self, PyObject *unused)
{
    PyObject *name = self->inode != 0 && !self->apart ? PyUnicode_EncodeFSDefault(self->name) : NULL;
    if (name != NULL)
        take_name_back(self, PyBytes_AsString(name));
    Py_XDECREF(name);
    if (self->info.locks_apart)
        ssm_lock_file_unlink(self->info.generation);
    return pool_close(self, unused);
}

int pool_descriptor(const struct pool_object *self)
{
    struct stat st;
    if (!self->apart || self->newborn < 0 || fstat(self->newborn, &st) != 0)
        return -1;
    return st.st_dev == self->device && st.st_ino == self->inode ? self->newborn : -1;
}

/* ---- attach, retire ---------------------------------------------------------------------------------- */

/* What is opened next is none of the descriptors 0, 1 and 2. */
static bool is_above_standard(void)
{
    struct stat st;
    return fstat(0, &st) == 0 && fstat(1, &st) == 0 && fstat(2, &st) == 0;
}

/* posix_ipc says that it failed and not with which errno: then the core is asked. */
static int open_object(PyObject *opener, PyObject *name, const char *bytes, bool writable)
{
    PyObject *arguments = opener != Py_None && is_above_standard() ? Py_BuildValue("(O)", name) : NULL;
    PyObject *keywords = Py_BuildValue("{sisO}", "flags", O_NONBLOCK, "read_only", writable ? Py_False : Py_True);
    PyObject *object = arguments != NULL && keywords != NULL ? PyObject_Call(opener, arguments, keywords) : NULL;
    PyObject *number = object != NULL ? PyObject_GetAttrString(object, "fd") : NULL;
    long fd = number != NULL ? PyLong_AsLong(number) : -1;
    Py_XDECREF(number);
    Py_XDECREF(object);
    Py_XDECREF(keywords);
    Py_XDECREF(arguments);
    if (fd >= 0)
        return (int)fd;
    PyErr_Clear();
    return ssm_object_open(bytes, writable);
}

PyObject *pool_attach(PyTypeObject *type, PyObject *args)
{
    struct ssm_attach_options attach = {.hooks = wait_hooks};
    struct stat st = {.st_size = 0};
    unsigned int flags;
    PyObject *opener, *name;
    if (!PyArg_ParseTuple(args, "OUI:_attach", &opener, &name, &flags))
        return NULL;
    attach.flags = ATTACH_FLAGS | (flags & (SSM_READONLY | COMFORTS));
    PyObject *path = path_of(name, &attach);
    struct pool_object *self = path != NULL ? pool_new(type, name) : NULL;
    if (self != NULL) {
        self->readonly = (flags & SSM_READONLY) != 0;
        int fd = open_object(opener, name, strrchr(attach.path, '/'), !self->readonly), result = fd;
        if (fd >= 0) {
            fstat(fd, &st);
            wait_release_gil(); /* prefault takes its time */
            result = ssm_pool_attach(fd, &attach, &self->core);
            self->apart = (flags & POOL_APART) != 0;
            self->newborn = self->apart ? fd : -1;
            self->device = self->apart ? st.st_dev : 0;
            self->inode = self->apart ? st.st_ino : 0;
            if (!self->apart)
                close(fd);
            wait_take_gil();
        }
        self = (struct pool_object *)pool_finish(self, result, st.st_size);
    }
    Py_XDECREF(path);
    return OBJECT(self);
}

/* 1: the name is free; 0: it is not; or an error. */
static int retire(int fd, const char *name, const struct pool_object *leaving)
{
    int result;
    /* Made here, and nothing is left of it here. */
    const bool made = leaving != NULL && leaving->core == NULL && leaving->inode != 0;
    Py_BEGIN_ALLOW_THREADS
    result = ssm_pool_retire_name(fd, name, leaving != NULL ? leaving->core : NULL,
                                  made ? leaving->info.generation : 0);
    close(fd);
    Py_END_ALLOW_THREADS
    return result;
}

PyObject *core_retire(PyObject *module, PyObject *args)
{
    const struct module_state *state = PyModule_GetState(module);
    PyObject *opener, *name, *leaving = Py_None;
    if (!PyArg_ParseTuple(args, "OU|O:retire", &opener, &name, &leaving))
        return NULL;
    if (leaving != Py_None && !PyObject_TypeCheck(leaving, state->pool_type))
        return PyErr_Format(PyExc_TypeError, "retire() takes the Pool that this process leaves, not %R", leaving);
    PyObject *bytes = PyUnicode_EncodeFSDefault(name);
    if (bytes == NULL)
        return NULL;
    int fd = open_object(opener, name, PyBytes_AsString(bytes), true);
    int result = fd == -ENOENT ? 1
               : fd < 0
                   ? 0
                   : retire(fd, PyBytes_AsString(bytes), leaving != Py_None ? (struct pool_object *)leaving : NULL);
    Py_DECREF(bytes);
    return PyBool_FromLong(result == 1);
}

PyObject *core_locks_of(PyObject *module, PyObject *name)
{
    PyObject *bytes;
    (void)module;
    if (!PyUnicode_FSConverter(name, &bytes))
        return NULL;
    int fd = ssm_object_open(PyBytes_AsString(bytes), 0);
    uint64_t generation = fd >= 0 ? ssm_lock_file_named_by(fd) : 0;
    if (fd >= 0)
        close(fd);
    Py_DECREF(bytes);
    return PyLong_FromUnsignedLongLong(generation);
}

PyObject *core_unlink_locks(PyObject *module, PyObject *args)
{
    unsigned long long generation;
    int unused;
    (void)module;
    if (!PyArg_ParseTuple(args, "Kp:unlink_locks", &generation, &unused))
        return NULL;
    if (unused)
        ssm_lock_file_sweep(generation);
    else
        ssm_lock_file_unlink(generation);
    RETURN_NONE;
}

PyObject *core_begins(PyObject *module, PyObject *args)
{
    PyObject *name;
    const char *bytes;
    Py_ssize_t count;
    char found[64];
    (void)module;
    if (!PyArg_ParseTuple(args, "O&y#:begins", PyUnicode_FSConverter, &name, &bytes, &count))
        return NULL;
    int fd = count <= (Py_ssize_t)sizeof found ? ssm_object_open(PyBytes_AsString(name), 0) : -1;
    Py_DECREF(name);
    bool same = fd >= 0 && pread(fd, found, (size_t)count, 0) == count && memcmp(found, bytes, (size_t)count) == 0;
    if (fd >= 0)
        close(fd);
    return PyBool_FromLong(same);
}

PyObject *core_sweep(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    Py_BEGIN_ALLOW_THREADS
    ssm_object_sweep();
    Py_END_ALLOW_THREADS
    RETURN_NONE;
}

/* ---- closing ----------------------------------------------------------------------------------------- */

/* How many pinned blocks are left. */
static int close_locked(struct pool_object *pool)
{
    struct wait_scope scope;
    pool->closed = true;
    wait_begin_close(&scope, pool);
    int left = pool->core != NULL ? ssm_pool_close(pool->core) : 0;
    left -= pool->core != NULL ? (int)ssm_pool_sleepers(pool->core) : 0;
    wait_end(&scope);
    for (struct ring_object *ring = pool->rings, *next; ring != NULL; ring = next) {
        next = ring->next;
        ring_settle(ring);
    }
    pool_settle(pool);
    return left;
}

const char pool_close_doc[] = PyDoc_STR(
    "_close($self, /)\n--\n\n"
    "Give back what no view needs. True when nothing is left: this process is no holder any more.");

PyObject *pool_close(struct pool_object *self, PyObject *unused)
{
    (void)unused;
    int left;
    POOL_LOCK(self)
    left = close_locked(self);
    POOL_UNLOCK()
    return PyErr_Occurred() ? NULL : PyBool_FromLong(left <= 0); /* a signal handler may have raised while it waited */
}
