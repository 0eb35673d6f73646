/* SPDX-License-Identifier: Apache-2.0
 *
 * ssm: a packet pool for processes, in shared memory. The public header.
 *
 * Caveats first.
 * - Linux only: open-file-description locks and futexes carry the crash safety.
 * - A process that can attach can write: the pool is as trustworthy as the processes that attach to it.
 *   What is read from the segment is checked before use, so a broken peer costs an error, not a crash;
 *   a peer that truncates the file costs SIGBUS, but for calls that look, wait or close: SSM_E_CORRUPT.
 * - A handle is worth something only in a process that holds the packet: pass packets through rings.
 *
 * Words. A *pool* is one shared memory segment. A *block* is a fixed piece of its payload area; a block
 * that is held is a *packet*: a window (headroom | data | tailroom) into the block. The *arena* is
 * memory for packets that are larger than any block: each gets a block of its size. A *holder* is
 * an attached process or a ring. A *handle* is generation << 32 | block index; it goes stale when the
 * packet is freed. An attachment (struct ssm_pool) is private to a process; every attachment is a holder
 * of its own.
 *
 * Threads: calls on one attachment may come from any thread, unless it was attached with SSM_SERIAL: then
 * the caller promises that they do not overlap (a sleeping call does not count: others may run meanwhile).
 * Fork: the child is a new holder from its first call on; it holds nothing that its parent held.
 *
 * Errors: 0 (or a count) is success, a failure is a negative errno or a negative SSM_E_*.
 * Options begin with `size`, their sizeof as the caller was compiled. So a later release can add fields: those that the
 * caller does not know are zero. size 0 means the struct as it was first. Options that are larger than the library
 * knows, with anything but zeros there, are -E2BIG; a size that no release had is -EINVAL.
 * Time-outs are nanoseconds: 0 does not wait, SSM_FOREVER does not give up.
 */
#ifndef SSM_H
#define SSM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SSM_FOREVER           ((int64_t)-1)
#define SSM_NAME_SIZE         48    /* bytes of a ring's or a process's name, the final NUL included */
#define SSM_CLASS_MAX         32    /* size classes of a pool */
#define SSM_SHARD_MAX         64    /* shards of a size class */
#define SSM_HOLDER_MAX        4096u /* holder slots of a pool */
#define SSM_CACHE_MAX         4096u /* blocks of a class that a process may keep for itself */
#define SSM_ARENA_PACKETS_MAX 65536
#define SSM_RING_MAX          16777216 /* packets that a ring can take */
#define SSM_SERVICE_MAX       64       /* services of a pool */

/* A number never gets another meaning; new ones follow at the end. */
enum ssm_error {
    SSM_E_EXHAUSTED   = 4097, /* no block of the class is free, or no room in the arena */
    SSM_E_TOO_LARGE   = 4098, /* no class is large enough, nor the arena */
    SSM_E_STALE       = 4099, /* this process does not hold that packet (any more) */
    SSM_E_FULL        = 4100, /* the ring is full */
    SSM_E_EMPTY       = 4101, /* the ring is empty */
    SSM_E_SHUTDOWN    = 4102, /* the ring is shut down, or its flow or peer is down */
    SSM_E_BUSY        = 4103, /* the exclusive side of the ring belongs to another live process */
    SSM_E_RDONLY      = 4104, /* the ring is read-only */
    SSM_E_QUEUED      = 4105, /* the packet is in this ring already */
    SSM_E_HOLDERS     = 4106, /* every holder slot is taken by a live process or a ring */
    SSM_E_LAYOUT      = 4107, /* not a pool, or of another layout version */
    SSM_E_CORRUPT     = 4108, /* the segment contradicts itself */
    SSM_E_ABANDONED   = 4109, /* the pool was retired: see ssm_pool_retire() */
    SSM_E_MISMATCH    = 4110, /* it exists with other parameters */
    SSM_E_ROOM        = 4111, /* not enough headroom, tailroom or data */
    SSM_E_METADATA    = 4112, /* the pool's metadata area is used up */
    SSM_E_CLOSED      = 4113, /* the attachment is closed */
    SSM_E_UNAVAILABLE = 4114, /* service: nothing free that fits, or no such range */
    SSM_E_OVERFLOW    = 4115, /* service: the largest id there is has been handed out */
    SSM_E_UNMANAGED   = 4116, /* service: not one of its values */
    SSM_E_RELEASED    = 4117, /* service: free already */
    SSM_E_NEVER       = 4118, /* service: never handed out */
    SSM_E_RESTING     = 4119, /* service: free, but not for long enough */
    SSM_E_CROWDED     = 4120, /* service: as many ranges as it has room for */
    SSM_E_QUOTA       = 4121, /* it would hold more than ssm_pool_set_quota() allows */
    SSM_E_SEGMENT     = 4122, /* the packet is a segment of a chain, or stands in the call twice */
    SSM_E_CHAIN       = 4123, /* a chain goes with SSM_KEEP into no ring, and into none that redelivers */
    SSM_E_SHARED      = 4124, /* somebody else holds the packet as well, or this process does so more than once */
    SSM_E_PINNED      = 4125, /* there are views of the packet */
    SSM_E_NO_SHM      = 4126, /* the system has no directory /dev/shm */
    SSM_E_NO_PROC     = 4127, /* /proc is not mounted, or shows another PID namespace */
    SSM_E_NO_LOCKS    = 4128, /* the kernel has no open-file-description locks */
    SSM_E_LOCKS_GONE  = 4129, /* the pool's lock file has lost its name */
    SSM_E_MEMLOCK     = 4130, /* SSM_MLOCK: the process may not lock so much memory (RLIMIT_MEMLOCK) */
    SSM_E_ORPHANED    = 4131, /* the processes on the other side of the ring have died or closed it */
    SSM_E_RINGS       = 4132, /* the pool has as many rings as it may have; the other holder slots are for processes */
    SSM_E_UNLINKED    = 4133, /* the ring was unlinked, and is gone */
    SSM_E_DONE        = 4134  /* of struct ssm_done: no open delivery of this process, or twice in the call */
};
const char *ssm_strerror(int error); /* one short sentence, for either sign */

/* Which release this header is of, and the library that runs: for 1.2.3, 10203. The library does whatever the header of
 * an earlier release of the same major version asks for (while that is 0: of the same minor version). */
#define SSM_VERSION_MAJOR 0
#define SSM_VERSION_MINOR 2
#define SSM_VERSION_PATCH 0
#define SSM_VERSION       (SSM_VERSION_MAJOR * 10000 + SSM_VERSION_MINOR * 100 + SSM_VERSION_PATCH)
int ssm_version(void);

/* ---- shared memory objects -------------------------------------------------------------------- */

/* Files in /dev/shm, where shm_open(3) has them. `name` as there: "/lab" or "lab". All answer SSM_E_NO_SHM where there
 * is no such directory. */

/* A new, empty object without a name, open for reading and writing, mode 0600 less the umask: its descriptor.
 * Unless it gets a name, it goes with its last descriptor and mapping. (Where the file system has no such files, it
 * has a temporary name until then; after a death the next ssm_object_new() or ssm_object_sweep() of this user
 * removes that.) */
int ssm_object_new(void);
/* The same in no directory (memfd_create): it gets no name, needs no /dev/shm and is not counted as a part of it.
 * Others open it as /proc/PID/fd/N of a process that has it open. */
int ssm_object_new_apart(void);
/* Gives it its name; -EEXIST when that is taken. Change its mode and owner before: from then on others can open it. */
int ssm_object_link(int fd, const char *name);
/* Opens one: a descriptor. SSM_E_LAYOUT: a symbolic link, a directory, a FIFO or the like, nothing of which is
 * followed. */
int ssm_object_open(const char *name, int writable);
/* Removes the name if it leads to the object behind `fd`: 1; 0 if it leads elsewhere, or nowhere. */
int ssm_object_unlink(int fd, const char *name);
/* Removes the temporary names that this user's dead processes have left. */
void ssm_object_sweep(void);

/* ---- pools ------------------------------------------------------------------------------------- */

struct ssm_class_spec {
    uint64_t block_size; /* bytes, headroom and tailroom included; at least 64 */
    uint32_t block_count;
};

enum ssm_pool_flags {
    SSM_EPHEMERAL = 1u << 0, /* the name goes with the last process (see ssm_pool_retire) */
    SSM_HUGEPAGES = 1u << 1, /* create, attach: ask for transparent huge pages */
    SSM_PREFAULT  = 1u << 2, /* create, attach: touch every page now */
    SSM_MLOCK     = 1u << 3, /* create, attach: never page out */
    SSM_READONLY  = 1u << 4, /* attach: look, do not touch; takes no holder slot */
    SSM_SERIAL    = 1u << 5  /* create, attach: the caller serialises the calls */
};

struct ssm_pool_options {
    size_t                size;                   /* of this struct, or 0: see the top of this file */
    struct ssm_class_spec classes[SSM_CLASS_MAX]; /* ascending by block_size, no size twice */
    uint32_t              class_count;
    uint32_t              shards;         /* per class */
    uint32_t              headroom;       /* bytes in front of a fresh packet's data */
    uint32_t              tailroom;       /* bytes kept free behind it */
    uint32_t              cache;          /* blocks per class that a process may keep in front of the shards */
    uint32_t              holders;        /* processes and rings together; rounded up to a multiple of 64 */
    uint64_t              metadata_bytes; /* room for rings and services */
    uint32_t              flags;          /* SSM_EPHEMERAL */
    uint32_t arena_packets; /* the most at once; 0: as many as can be of packets larger than any block, 16 .. 4096 */
    uint64_t arena_bytes;   /* memory for packets larger than any block, more than the largest has; 0: no arena */
    /* The arena grows to so many bytes, by units of 64 KiB, as its packets need them; arena_bytes, which may be 0, are
     * reserved when the pool is made. Until then the file has room for them and no memory. 0: it does not grow. */
    uint64_t grow_bytes;
    /* Of a pool that others may read and not write: the mode of its lock file, without which they could stop the
     * writers by read locks. Each who may write to the pool may read and write that file, nobody else. 0: none. */
    uint32_t locks_mode;
};
/* The values of the build, and `size`: sizeof of the struct, as the caller was compiled. */
void ssm_pool_options_init(struct ssm_pool_options *options, size_t size);
static inline void ssm_pool_options_default(struct ssm_pool_options *options)
{
    ssm_pool_options_init(options, sizeof *options);
}
int64_t ssm_pool_bytes(const struct ssm_pool_options *options); /* that such a pool takes; or -EINVAL, -EOVERFLOW */

/* Called around every sleep, and now and then in calls that work for long; `after` returns non-zero to give up with
 * -EINTR. Either may be NULL. */
struct ssm_sleep_hooks {
    void *(*before)(void);
    int (*after)(void *state);
};

struct ssm_attach_options {
    size_t                 size;       /* of this struct, or 0 */
    const char            *name;       /* of this process, for people to read; NULL: the kernel's name for it */
    uint32_t               flags;      /* SSM_READONLY | SSM_SERIAL | SSM_HUGEPAGES | SSM_PREFAULT | SSM_MLOCK */
    int64_t                timeout_ns; /* how long to wait for a live process that is in the way; 0: 10 s */
    const char            *path;       /* to open the file again; NULL: the path that the kernel knows */
    struct ssm_sleep_hooks hooks;
};

struct ssm_pool;

/* `fd` is the caller's and stays so: the attachment opens the file anew for its liveness lock. Attach options may be
 * NULL.
 * create: takes an empty file of shared memory, best one without a name (ssm_object_new(), or memfd_create of the
 * system). Give it its name when the pool is ready, as in
 *     int fd = ssm_object_new();
 *     ssm_pool_create(fd, &options, NULL, &pool);   fchmod(fd, 0660);   ssm_object_link(fd, "/lab");   close(fd);
 * and a death on the way leaves nothing. A file that is not ready is no pool: attaching to it is SSM_E_LAYOUT. -ENOSPC
 * if memory cannot be reserved (all of it is, except what an arena may grow by); -EEXIST if the file is not empty. After
 * a failure the file is as it was.
 * attach: SSM_E_LAYOUT, SSM_E_CORRUPT, SSM_E_ABANDONED, SSM_E_HOLDERS.
 * Both: SSM_E_NO_PROC, SSM_E_NO_LOCKS, SSM_E_MEMLOCK, -ETIMEDOUT. */
int ssm_pool_create(int fd, const struct ssm_pool_options *options, const struct ssm_attach_options *attach,
                    struct ssm_pool **pool_out);
int ssm_pool_attach(int fd, const struct ssm_attach_options *options, struct ssm_pool **pool_out);

/* Right after creation, when nothing points into the memory yet: maps it by `fd`, which was opened by the pool's name,
 * so that /proc/PID/maps shows that name; a file that was made without a name is shown as deleted. Nothing else
 * changes, and nothing at all where the file is another one, where there is no room for a second mapping, or with
 * SSM_PREFAULT or SSM_MLOCK, which would have to be done once more. */
void ssm_pool_remap(struct ssm_pool *pool, int fd);

/* Pools by name: all that the calls above leave to the caller. `name` is as for ssm_object_link(). A new pool is found
 * when it is ready, and not before; a death on the way leaves nothing. A name that an ephemeral pool of this user has,
 * which no process uses any more, is as good as free.
 *     struct ssm_name_options options = {.size = sizeof options, .mode = 0660};
 *     if (ssm_open_name("lab", &options, &pool) == 0) {
 *         ...
 *         ssm_close_name("lab", pool);
 *     } */
enum ssm_name_flags {
    SSM_GIVE_USER  = 1u << 0, /* a new pool belongs to `uid`; for root */
    SSM_GIVE_GROUP = 1u << 1, /* ... to `gid` */
    SSM_MODE_ZERO  = 1u << 2  /* `mode` 0 means no permissions at all */
};
struct ssm_name_options {
    size_t                           size;   /* of this struct, or 0 */
    const struct ssm_pool_options   *pool;   /* what a new pool is; NULL: the values of the build */
    const struct ssm_attach_options *attach; /* NULL: none is set */
    uint32_t                         mode;   /* of a new pool, exactly: the umask does not cut it; 0: 0600 */
    uint32_t                         flags;  /* enum ssm_name_flags */
    uint32_t                         uid, gid;
};
/* create: -EEXIST where something has the name. open: attaches, or creates it if it is not there; safe where several
 * processes do so at once. attach: -ENOENT if no pool of that name comes in time. Options may be NULL. All: the errors
 * of ssm_pool_create() and ssm_pool_attach(); -EINVAL, a name that cannot be; -EACCES; -ETIMEDOUT: for ten seconds others
 * have created and removed pools of that name. */
int ssm_create_name(const char *name, const struct ssm_name_options *options, struct ssm_pool **pool_out);
int ssm_open_name(const char *name, const struct ssm_name_options *options, struct ssm_pool **pool_out);
int ssm_attach_name(const char *name, const struct ssm_attach_options *attach, int64_t timeout_ns,
                    struct ssm_pool **pool_out);
/* Removes the name, and the lock file with it; those who are attached keep the pool. -ENOENT. */
int ssm_unlink_name(const char *name);
/* Closes the pool and destroys the attachment; the last process of an ephemeral one removes the name. Returns what
 * ssm_pool_close() returns: if that is not 0, the attachment is closed and not destroyed, for there are pinned packets. */
int ssm_close_name(const char *name, struct ssm_pool *pool);

/* The parts of these calls, for programs with signal handlers that may run in between. publish: gives a pool that was
 * made in `fd` its owner and its mode, and then its name (NULL: none). retire_name: ssm_pool_retire(), or with a
 * generation in `made` ssm_pool_retire_made(), and removes the name: 1; 0 if it is not over, or may not be removed.
 * locks_mode: ssm_pool_options.locks_mode of a pool of that mode. */
int ssm_pool_publish(struct ssm_pool *pool, int fd, const char *name, const struct ssm_name_options *options);
int ssm_pool_retire_name(int fd, const char *name, const struct ssm_pool *leaving, uint64_t made);
uint32_t ssm_locks_mode(uint32_t mode);

/* Gives every packet back that is not pinned. Returns the number of pinned blocks, and of sleeping calls: while it is
 * not 0 the process stays a holder and the memory stays mapped; the unpin of the last one finishes the close. Where a
 * stopped process keeps it from leaving in order for a second, it leaves as one that died: others take back what is
 * left. After it, calls answer -SSM_E_CLOSED, but for ssm_packet_unpin() and ssm_pool_destroy(). */
int ssm_pool_close(struct ssm_pool *pool);
/* Calls of other threads that are asleep in it: until there is none it is not destroyed. */
uint32_t ssm_pool_sleepers(struct ssm_pool *pool);
/* Frees the attachment; the caller has seen to it that no view into the memory is left. NULL is ignored. */
void ssm_pool_destroy(struct ssm_pool *pool);

/* 1: the pool behind `fd` is over (ephemeral, and nobody alive) and nobody can attach any more; the right to unlink its
 * name (ssm_object_unlink()) is the caller's until it closes `fd`. 0: in use, or meant to stay. The file of another
 * user is 0, too: it is for that user to end. SSM_E_LAYOUT: not a pool. `fd` must be an open file description of its
 * own, open for writing. `leaving`: an attachment whose process is about to end, so that it does not count as alive,
 * though it may have pinned blocks; or NULL. */
int ssm_pool_retire(int fd, const struct ssm_pool *leaving);
/* As ssm_pool_retire(), of the pool of that `generation`, by a process that made it and has left it: root ends a pool
 * that it made for another user, too. */
int ssm_pool_retire_made(int fd, uint64_t generation);

/* The lock file of a pool: see ssm_pool_options.locks_mode. It is unlinked with the pool's name. sweep: if nobody uses
 * it and it is this user's; the caller has seen that no pool of that generation has a name. 1: done. */
void ssm_lock_file_unlink(uint64_t generation);
int ssm_lock_file_sweep(uint64_t generation);
/* The generation of the pool behind `fd`, if it has a lock file; 0. */
uint64_t ssm_lock_file_named_by(int fd);
/* Gives the lock file of a pool to another user or group, as chown(2). */
int ssm_lock_file_give(struct ssm_pool *pool, uint32_t uid, uint32_t gid);

/* The attachment's name from now on, for people to read; cut to SSM_NAME_SIZE - 1 bytes. Of a forked child that has no
 * slot yet, it is that of the slot that the child takes. */
int ssm_pool_set_name(struct ssm_pool *pool, const char *name);

/* From now on alloc answers SSM_E_QUOTA where this attachment would hold more than so many bytes, block sizes added up.
 * What comes out of rings counts, but is never refused. UINT64_MAX: no quota. */
int ssm_pool_set_quota(struct ssm_pool *pool, uint64_t bytes);
/* What this process holds of the pool, block sizes added up, by all attachments that it has of it. Another thread may
 * change that at once. */
uint64_t ssm_pool_held_here(struct ssm_pool *pool);

/* Changes with every fork: what was made in another era was the parent's. The address stays valid. */
const uint32_t *ssm_pool_era(const struct ssm_pool *pool);

struct ssm_pool_info {
    uint64_t size_bytes;
    uint64_t generation; /* random, chosen at creation */
    uint32_t class_count, shards, headroom, tailroom, cache, holders, flags;
    uint32_t locks_apart; /* it has a lock file */
    uint32_t self;        /* this attachment's holder id; UINT32_MAX when it has none */
    uint32_t arena_packets;
    uint32_t rings_max;      /* of the holders, so many can be rings: the others are kept for processes */
    uint64_t arena_bytes;    /* 0: the pool has no arena. Where a class_idx is asked for, the arena's is class_count */
    uint64_t arena_reserved; /* of these, reserved when the pool was made; less where the arena grows */
    struct ssm_class_spec classes[SSM_CLASS_MAX];
};
int ssm_pool_info(struct ssm_pool *pool, struct ssm_pool_info *info_out);
/* Whose the pool is now, and with which permission bits: who may write into it. Or -errno. */
int ssm_pool_access(struct ssm_pool *pool, uint32_t *uid_out, uint32_t *mode_out);

/* ---- packets ------------------------------------------------------------------------------------ */

/* alloc: the smallest class with headroom + size + tailroom <= block_size; it does not spill into a larger
 * one. What is too large for all of them comes out of the arena, in a block of its size: a multiple of 64, from 64 KiB
 * on aligned to a page. Where the arena grows, so does what finds its class full. Contents are not zeroed. alloc_many:
 * all or nothing, count >= 1. */
int ssm_alloc(struct ssm_pool *pool, uint64_t size, int64_t timeout_ns, uint64_t *handle_out);
int ssm_alloc_many(struct ssm_pool *pool, uint64_t size, uint32_t count, int64_t timeout_ns, uint64_t *handles_out);
int ssm_free(struct ssm_pool *pool, uint64_t handle);                              /* gives one reference back */
int ssm_free_many(struct ssm_pool *pool, const uint64_t *handles, uint32_t count); /* a stale one: nothing is freed */

/* This process may hold a packet several times: hold adds a reference, free gives one back. */
int ssm_packet_hold(struct ssm_pool *pool, uint64_t handle);

/* What a process takes out of a ring with SSM_REDELIVER is a delivery, until it is done: by a free, or a put without
 * SSM_KEEP, of one reference that belongs to it, whatever other references this process has; those keep the block, and
 * nothing else. The reference that a get gives belongs to its delivery. Where a process has several references to one
 * packet (it came through several rings), it names the delivery that is meant; the calls above mean the latest that is
 * open. */
#define SSM_NO_DELIVERY  0          /* the reference belongs to none */
#define SSM_ANY_DELIVERY UINT64_MAX /* the latest that is open */
/* The name of the latest one of that packet that is open; of all that one call of get took out of one ring it is the
 * same. */
uint64_t ssm_packet_delivery(struct ssm_pool *pool, uint64_t handle);
int ssm_packet_hold_of(struct ssm_pool *pool, uint64_t handle, uint64_t delivery); /* the new reference belongs to it */
/* Give back references that belong to the delivery. done == 0: it ends only if these were its last ones. */
int ssm_free_of(struct ssm_pool *pool, uint64_t handle, uint64_t delivery, int done);
int ssm_free_many_of(struct ssm_pool *pool, const uint64_t *handles, uint32_t count, uint64_t delivery, int done);
int ssm_delivery_done(struct ssm_pool *pool, uint64_t handle, uint64_t delivery); /* it ends; all references stay */
/* It ends, and the packet is delivered once more, at the front, as after a death. All references stay. -ETIMEDOUT:
 * another process is at the registry; nothing has changed. */
int ssm_delivery_return(struct ssm_pool *pool, uint64_t handle, uint64_t delivery);
/* All that are open: how many there are; they end; they are returned, -ETIMEDOUT as above. `finish` may be called as
 * the last thing of a process, whatever its other threads were at: it waits for nobody. */
uint32_t ssm_deliveries_open(struct ssm_pool *pool);
void ssm_deliveries_finish(struct ssm_pool *pool);
int ssm_deliveries_return(struct ssm_pool *pool);
/* A pinned reference outlives ssm_pool_close(). pin marks one of this process's references; unpin takes the
 * mark off and, when `drop` is set or the pool was closed meanwhile, gives the reference back. */
int ssm_packet_pin(struct ssm_pool *pool, uint64_t handle);
int ssm_packet_unpin(struct ssm_pool *pool, uint64_t handle, int drop);

struct ssm_packet {
    uint8_t *data;
    uint64_t length;
    uint64_t headroom, tailroom; /* bytes free in the block in front of and behind the data */
    uint64_t block_size;
};
/* SSM_E_STALE unless this process holds it. */
int ssm_packet_view(struct ssm_pool *pool, uint64_t handle, struct ssm_packet *packet_out);
/* Of `count` packets: where the data of each begin, how long they are, and its tag. Any of the three may be NULL. After
 * an error, which is that of the first packet that has one, the arrays mean nothing. */
int ssm_packet_view_many(struct ssm_pool *pool, const uint64_t *handles, uint32_t count, uint8_t **data_out,
                         uint64_t *lengths_out, uint64_t *tags_out);
/* 1: no other process and no ring holds the packet, and this process has one reference to it; so nobody else can write to
 * it until this process gives it on. 0: somebody does, or did a moment ago, or died holding it and was not reaped yet.
 * SSM_E_STALE. */
int ssm_packet_is_alone(struct ssm_pool *pool, uint64_t handle);

/* Move an edge of the window. SSM_E_ROOM, and nothing changed, where there is no room. `bytes_out` (may be
 * NULL) is where the bytes added or removed begin. */
int ssm_packet_prepend(struct ssm_pool *pool, uint64_t handle, uint64_t bytes, uint8_t **bytes_out);
int ssm_packet_append(struct ssm_pool *pool, uint64_t handle, uint64_t bytes, uint8_t **bytes_out);
int ssm_packet_trim_front(struct ssm_pool *pool, uint64_t handle, uint64_t bytes, uint8_t **bytes_out);
int ssm_packet_trim_back(struct ssm_pool *pool, uint64_t handle, uint64_t bytes, uint8_t **bytes_out);

int ssm_packet_tag(struct ssm_pool *pool, uint64_t handle, uint64_t *tag_out);
int ssm_packet_set_tag(struct ssm_pool *pool, uint64_t handle, uint64_t tag);

/* 1: it came out of a redelivering ring, and another process had it before and died; else 0. SSM_E_STALE. */
int ssm_packet_redelivered(struct ssm_pool *pool, uint64_t handle);
/* 1, and the packet's position in the redelivering ring that it was taken from: how many packets were put into that ring
 * before it. A redelivered packet has the position that it was put at. 0: the delivery is none of this packet's, or the
 * packet has come out of that ring once more since. SSM_E_STALE. */
int ssm_packet_position(struct ssm_pool *pool, uint64_t handle, uint64_t delivery, uint64_t *position_out);
/* 1, and how often that ring has handed the packet out since it was put, this time included; otherwise as above. */
int ssm_packet_deliveries(struct ssm_pool *pool, uint64_t handle, uint64_t delivery, uint64_t *count_out);

/* A message that does not fit into one block: a chain of packets. Its first one, the head, goes by its handle through
 * rings, as one packet that takes one place; the others, its segments, go with it, and are freed with it. */
#define SSM_CHAIN_MAX 1024u      /* packets of a chain, the head included */
#define SSM_NO_NEXT   UINT64_MAX /* no handle */
/* Hangs `count` packets behind the head, in this order, and takes over this process's references to them. It has each
 * of them once, alone, not pinned, and not out of a redelivering ring. What hung on the head before is freed; with
 * count == 0 this is all. After an error nothing has changed. -EINVAL: too many. SSM_E_SEGMENT, SSM_E_SHARED,
 * SSM_E_PINNED, SSM_E_STALE; SSM_E_CHAIN: one of them has segments itself, or came out of a redelivering ring. */
int ssm_packet_link(struct ssm_pool *pool, uint64_t head, const uint64_t *segments, uint32_t count);
/* The packet behind a head or a segment: 1, and its handle; 0: there is none. The reference is the chain's: a
 * caller that wants one of its own calls ssm_packet_hold(). */
int ssm_packet_next(struct ssm_pool *pool, uint64_t handle, uint64_t *next_out);

/* ---- rings -------------------------------------------------------------------------------------- */

enum ssm_ring_flags {
    SSM_ONE_PRODUCER = 1u << 0, /* exclusive to the first process that puts, as long as it lives */
    SSM_ONE_CONSUMER = 1u << 1,
    /* What a dead process took out and neither freed nor put into a ring comes out once more, before all that is
     * queued, in the order in which it was taken, and one by one: a call that asks for more gets one. 24 bytes of
     * metadata per block of the pool. A packet that another process took out of it and has still cannot be put into it:
     * SSM_E_QUEUED. */
    SSM_REDELIVER = 1u << 2,
    /* What a put does that finds the ring full, instead of waiting; one of them at most. DROP: as many packets as there
     * is room for go in, the first ones; the others are freed. OVERWRITE: the oldest packets in the ring are freed to
     * make room; not with SSM_ONE_CONSUMER, for putting takes packets out, and not with SSM_REDELIVER. Each has a row
     * in the table of policies in rings/put.c. */
    SSM_OVERFLOW_DROP      = 1u << 3,
    SSM_OVERFLOW_OVERWRITE = 1u << 4,
    /* With SSM_OVERFLOW_EVERY(n): of the packets that find the ring full every n-th one goes in, as with OVERWRITE, the
     * others are freed, as with DROP. It excludes what OVERWRITE does. */
    SSM_OVERFLOW_SAMPLE = 1u << 5,
    /* It goes with the process that creates it: when that closes the pool or dies, the ring is shut down at once, what
     * is queued is freed, and its name is taken away. Not with SSM_REDELIVER. */
    SSM_OWNED = 1u << 8,
    /* Calls wait whatever becomes of the other side; without it, a get from an empty ring and a put into a full one end
     * with SSM_E_ORPHANED when the process of an exclusive other side has died or closed the ring. */
    SSM_WAIT_ANYWAY = 1u << 9,
    /* Calls end so for a side that is shared, too: when all processes that have used it, and all that have the ring open
     * and have used neither side, have died or closed it. Two bits of metadata for each holder of the pool. Not with
     * SSM_WAIT_ANYWAY. Asked for of a ring with an exclusive side that is there, it is as it is. */
    SSM_PEERS = 1u << 11
};
#define SSM_ALIVE_FOR         (UINT32_C(1) << 10)   /* in as_it_is: alive_for_ns is not asked for */
#define SSM_OVERFLOW_EVERY(n) ((uint32_t)(n) << 16) /* 2 .. 65535 */
#define SSM_OVERFLOW_MASK     UINT32_C(0xffff00f8)  /* of the flags: the policy, and its number from bit 16 on */
#define SSM_OVERFLOW_SIZE     32                    /* of a policy in words, with its NUL */
enum ssm_acl {
    SSM_ACL_RDWR     = 0,
    SSM_ACL_RDONLY   = 1u << 0, /* put: SSM_E_RDONLY */
    SSM_ACL_FLOWDOWN = 1u << 1, /* put: SSM_E_SHUTDOWN; get: the same once empty */
    SSM_ACL_FLOWPEER = 1u << 2  /* get: SSM_E_SHUTDOWN once empty */
};
enum ssm_put_flags {
    SSM_KEEP         = 1u << 0, /* put: keep this process's reference as well */
    SSM_HANDOVER     = 1u << 1, /* with SSM_KEEP: a redelivering ring that it came from may forget it all the same */
    SSM_ONE_DELIVERY = 1u << 2  /* put_of: deliveries[0] is that of all packets */
};

struct ssm_ring;
struct ssm_ring_options {
    size_t   size;         /* of this struct, or 0 */
    uint32_t capacity;     /* packets; 0: as it is, or the build's value (SSM_RBUFF_SIZE) for a new ring */
    uint32_t flags;        /* enum ssm_ring_flags */
    uint32_t as_it_is;     /* of these, those that are not asked for: a ring that is there may have them or not */
    uint64_t alive_for_ns; /* how long after the last process of a side went calls of the other one still wait */
    const char
            *content;  /* what its packets are, for programs: any text below SSM_TYPE_SIZE bytes; NULL: any, or none */
    uint32_t existing; /* 1: no ring is made; -ENOENT if there is none of that name */
};
#define SSM_TYPE_SIZE 1024 /* with its NUL */

/* Opens the ring of that name, or creates it. SSM_E_RINGS, SSM_E_HOLDERS: there is no slot for another ring;
 * SSM_E_MISMATCH: it exists with another capacity, flags or content. -EINVAL:
 * no ring can have these flags, or a new ring's flags exclude each other. Opening an existing ring takes no lock, and a
 * time that depends on the holders in use, not on the slots that the pool has for them. */
int ssm_ring_open(struct ssm_pool *pool, const char *name, const struct ssm_ring_options *options,
                  struct ssm_ring **ring_out);
/* Is an open ring as asked for: 1; 0; or SSM_E_CORRUPT. */
int ssm_ring_matches(struct ssm_ring *ring, const struct ssm_ring_options *options);
int ssm_ring_type(struct ssm_ring *ring, char text_out[SSM_TYPE_SIZE]); /* its content: the length; 0: none was given */
void ssm_ring_close(struct ssm_ring *ring);       /* gives exclusive sides back; before ssm_pool_destroy() */
void ssm_ring_close_spare(struct ssm_ring *ring); /* of one that this process has open once more: it keeps its sides */

/* Takes the ring's name away, at once: nobody opens it any more, and a new ring may have the name. Processes that have
 * it open go on with it. When the last of them has closed it, or has died and was reaped, what is queued in it is freed,
 * and its holder slot and memory are there for others. A process with a packet that a death would return to the ring
 * counts as having it open. A forked child counts from its first call on; if the ring is gone by then, put and get answer
 * SSM_E_UNLINKED. 0; -ENOENT: it has no name any more, or no ring has that name; -ETIMEDOUT: a stopped process has
 * kept the registry for ten seconds. */
int ssm_ring_unlink(struct ssm_ring *ring);
int ssm_ring_unlink_name(struct ssm_pool *pool, const char *name);
int ssm_ring_is_unlinked(const struct ssm_ring *ring);                         /* 1 or 0 */
int ssm_ring_is_same(const struct ssm_ring *ring, const struct ssm_ring *one); /* of one attachment: 1 or 0 */

/* A policy in words, such as "drop", and as flags. `number`: of the row, from 0 on; NULL: there are no more. 0, or
 * -EINVAL: no ring has this policy. 0 as flags, "block" in words: a put waits. */
const char *ssm_overflow_name(uint32_t number);
const char *ssm_overflow_text(uint32_t number); /* what a put does then, in a sentence */
int ssm_overflow_of_words(const char *words, uint32_t *flags_out);
int ssm_overflow_in_words(uint32_t flags, char words_out[SSM_OVERFLOW_SIZE]);

/* put: all `count` packets or none (count <= capacity); this process's reference goes with them. Returns how many were
 * dropped: 0, but for SSM_OVERFLOW_DROP and SAMPLE; with SSM_KEEP these are this process's still. SSM_E_FULL from a
 * ring that overflows: a process that is stopped has the right to the side all the time. get: 1 to `count` packets,
 * waits for the first; returns how many. A chain counts as one packet, with its head's handle. put: SSM_E_SEGMENT,
 * SSM_E_CHAIN; SSM_E_SHARED and SSM_E_PINNED, where this process has another reference to one of its packets. */
int ssm_ring_put(struct ssm_ring *ring, const uint64_t *handles, uint32_t count, uint32_t flags, int64_t timeout_ns);
/* The same, with the delivery that each packet's reference belongs to. */
int ssm_ring_put_of(struct ssm_ring *ring, const uint64_t *handles, const uint64_t *deliveries, uint32_t count,
                    uint32_t flags, int64_t timeout_ns);
/* Packets that this process took out of redelivering rings, and is done with. */
struct ssm_done {
    const uint64_t *handles, *deliveries; /* deliveries: one per handle, or one for all; NULL: the latest of each */
    uint32_t        count, one_for_all;
};
/* ssm_ring_put_of(), which ends these deliveries as well, in one commit: whenever this process dies, either the packets
 * are in the ring and those of `done` are never delivered again, or none is in the ring and all of `done` are. The
 * references to those of `done` stay: free them. Where a ring that overflows drops packets, the deliveries end, too.
 * SSM_E_DONE: one of `done` is no open delivery of this process, is put by this call, or stands there twice. -EINVAL:
 * several packets into a ring with SSM_OVERFLOW_SAMPLE, which decides on each by itself. After an error nothing has
 * changed. */
int ssm_ring_put_done(struct ssm_ring *ring, const uint64_t *handles, const uint64_t *deliveries, uint32_t count,
                      const struct ssm_done *done, uint32_t flags, int64_t timeout_ns);
int ssm_ring_get(struct ssm_ring *ring, uint64_t *handles_out, uint32_t count, int64_t timeout_ns);
/* get that waits until `at_least` packets are there. Fewer, when the time is over, when no more come, or one that was
 * returned, which comes alone. SSM_E_EMPTY: there is none. -EINVAL: at_least exceeds count or the capacity. */
int ssm_ring_get_least(struct ssm_ring *ring, uint64_t *handles_out, uint32_t count, uint32_t at_least,
                       int64_t timeout_ns);
/* One attempt of it: SSM_E_EMPTY also if fewer are there, and more may come. */
int ssm_ring_get_enough(struct ssm_ring *ring, uint64_t *handles_out, uint32_t count, uint32_t at_least);

/* SSM_E_ORPHANED: nobody is left who might put into the empty ring, or get from the full one. What is queued is got
 * before. The next process of that side ends this state. */
uint64_t ssm_ring_alive_for_ns(const struct ssm_ring *ring);
/* The process that went last, of the side that the caller waits for (enum ssm_readiness: the producer's for TO_GET).
 * pid 0: that side never had a process of its own. */
struct ssm_partner_info {
    uint32_t pid;     /* as its own PID namespace has it */
    uint32_t died;    /* 1: it was found dead; 0: it closed the ring, or is there */
    uint64_t gone_ns; /* how long ago that was; 0: it is there */
    char     name[SSM_NAME_SIZE];
};
void ssm_ring_partner(struct ssm_ring *ring, uint32_t what, struct ssm_partner_info *out);

/* Waiting until all packets that were put are done. A process that got a packet reports it once, when it is done with
 * it. task_done: -EINVAL if as many are done as were put. join: 0 when all are done, or -ETIMEDOUT. Packets that a
 * shutdown discards are done; for those that a dead process had taken, another process has to report. */
int ssm_ring_task_done(struct ssm_ring *ring);
int ssm_ring_join(struct ssm_ring *ring, int64_t timeout_ns);
uint64_t ssm_ring_unfinished(struct ssm_ring *ring);

/* A topic: one ring has its latest packets, and each subscription is a ring of its own. That of the topic neither
 * redelivers nor has an exclusive side.
 * publish: put with SSM_KEEP. `roster_out`: how many subscriptions were counted when the packet went in.
 * enrol: puts the latest `count` packets into the subscription's ring, which is new and as large, and counts it, at one
 * moment; they stay in the topic's ring. Returns how many these were. `room`: for `count` handles, while it works. So
 * each packet is either among these, or was published with a roster that is not below the number of this subscription.
 * roster: how many were counted; if more than `known`, the rings of all of them are there to be found. number: of a
 * subscription's ring; 0: it was not counted yet. -ETIMEDOUT: a stopped process has a right to the topic's ring. */
int ssm_ring_publish(struct ssm_ring *topic, uint64_t handle, int64_t timeout_ns, uint32_t *roster_out);
int ssm_ring_enrol(struct ssm_ring *topic, struct ssm_ring *subscription, uint32_t count, uint64_t *room);
int ssm_ring_roster(struct ssm_ring *topic, uint32_t known, uint32_t *roster_out);
uint32_t ssm_ring_number(struct ssm_ring *subscription);

/* Of a redelivering ring, the position (ssm_packet_position) of the oldest packet that is not done with: taken, returned
 * or still queued; with none of these, that of the next one that is put. 1: it was returned, and waits to be taken; else 0.
 * A process that has the packet at this position knows that all before it were freed or handed on. Looks at every block
 * of the pool. -EINVAL: another ring. */
int ssm_ring_oldest(struct ssm_ring *ring, uint64_t *position_out);
uint32_t ssm_ring_depth(struct ssm_ring *ring); /* returned packets included: so it may exceed the capacity */
uint32_t ssm_ring_room(struct ssm_ring *ring);  /* packets that can be put now */
uint32_t ssm_ring_capacity(const struct ssm_ring *ring);
uint32_t ssm_ring_flags(const struct ssm_ring *ring);
uint32_t ssm_ring_acl(struct ssm_ring *ring);
int ssm_ring_set_acl(struct ssm_ring *ring, uint32_t acl); /* wakes everyone who waits */
/* No more puts; gets drain what is there, or with `immediate` nothing: queued packets are freed. */
int ssm_ring_shutdown(struct ssm_ring *ring, int immediate);

/* Waits until one of several rings, of one pool or of many, is worth a try. Nothing is taken: a ring that is ready may
 * be empty again when its turn comes. Returns how many are, with `ready` set in each; 0: none in time, or woken. The
 * rings stay open meanwhile. -EINTR and -SSM_E_CLOSED as other calls that wait. */
enum ssm_readiness { SSM_READY_TO_GET, SSM_READY_TO_PUT }; /* so is a ring that is shut down: the call will say so */
struct ssm_interest {
    struct ssm_ring *ring;
    uint32_t         what;  /* enum ssm_readiness */
    uint32_t         ready; /* out */
};
/* How many tries are worth it now: packets, or places; UINT32_MAX: of any number, each is answered at once. */
uint32_t ssm_ring_ready(const struct ssm_interest *interest);
/* Another thread's means to end the wait; may be NULL. */
struct ssm_waker;
struct ssm_waker *ssm_waker_new(void);
void ssm_waker_free(struct ssm_waker *waker);
void ssm_waker_wake(struct ssm_waker *waker);                      /* the wait under way returns, or the next one */
void ssm_waker_sleep(struct ssm_waker *waker, int64_t timeout_ns); /* waits for that alone */
int ssm_wait_rings(struct ssm_interest *interests, uint32_t count, struct ssm_waker *waker, int64_t timeout_ns);

/* ---- services ----------------------------------------------------------------------------------- */

/* Allocators that processes share by name. After a death inside any call, the call has happened or it has not. */
enum ssm_service_kind {
    SSM_SERVICE_NONE,
    SSM_SERVICE_IDS,       /* numbers of a range, the smallest free one first */
    SSM_SERVICE_PIDS,      /* numbers from 0 on, the smallest free one first */
    SSM_SERVICE_RMIDS,     /* numbers from 1 on, the first freed first, each after a rest */
    SSM_SERVICE_ADDRESSES, /* ranges of an address space */
    SSM_SERVICE_SEMAPHORE, /* permits, of which each process has some; always with SSM_RECLAIM */
    SSM_SERVICE_BOARD,     /* rows of plain memory; never with SSM_RECLAIM */
    SSM_SERVICE_KIND_MAX = SSM_SERVICE_BOARD
};
const char *ssm_service_kind_name(uint32_t kind); /* "ids" ...; NULL: there is no such kind */

enum ssm_service_flags { SSM_RECLAIM = 1u << 0 }; /* what a process has goes back when it leaves or dies */

struct ssm_service;
struct ssm_service_options {
    size_t   size; /* of this struct, or 0 */
    uint32_t kind, flags;
    uint64_t first, last; /* ids, addresses: the range, both included; pids: order, 0; rmids: the highest, rest in ns;
                           * semaphore: permits, at most SSM_PERMITS_MAX, 0; board: rows, a number that says what
                           * they are */
    uint32_t ranges;      /* addresses: the most at once; 0: as it is, or 1024 for a new service. board: bytes of a
                           * row */
};

/* Opens the service of that name, or creates it. -EINVAL: such parameters cannot be. SSM_E_MISMATCH: it exists with
 * others. SSM_E_METADATA: no room in the metadata area, or in the directory. In a pool attached with SSM_READONLY only
 * boards can be opened: those that are there; -ENOENT: there is none of that name. */
int ssm_service_open(struct ssm_pool *pool, const char *name, const struct ssm_service_options *options,
                     struct ssm_service **service_out);
void ssm_service_close(struct ssm_service *service); /* what was allocated stays so */

/* All calls: -ETIMEDOUT when a live process, one that is stopped, has kept the service's lock for ten seconds.
 * Ids, pids and rmids. `now_ns` is that of ssm_clock_ns(), and of interest to rmids only.
 * alloc: SSM_E_UNAVAILABLE, SSM_E_OVERFLOW, SSM_E_RESTING. free: SSM_E_UNMANAGED, SSM_E_RELEASED, SSM_E_NEVER. */
int ssm_number_alloc(struct ssm_service *service, uint64_t now_ns, uint32_t *number_out);
int ssm_number_free(struct ssm_service *service, uint32_t number, uint64_t now_ns);
int ssm_number_is_allocated(struct ssm_service *service, uint32_t number); /* 1, 0, or an error */
/* Nanoseconds of CLOCK_MONOTONIC as the initial time namespace has it: the same for all processes of a machine,
 * whatever their time namespaces, and that of bpf_ktime_get_ns. Only for a process that has a pool. */
uint64_t ssm_clock_ns(void);

enum ssm_range_policy { SSM_RANGE_FIRST, SSM_RANGE_LAST, SSM_RANGE_EXACT };
struct ssm_range_request {
    uint64_t size, align; /* a power of two */
    uint64_t min, max;    /* bounds of the whole range, both included */
    uint64_t exact;       /* its start, for SSM_RANGE_EXACT */
    uint32_t policy;
};
/* Addresses. alloc: -EINVAL, SSM_E_UNAVAILABLE, SSM_E_CROWDED. free, of a whole range as alloc gave it:
 * SSM_E_UNAVAILABLE, SSM_E_RELEASED. */
int ssm_range_alloc(struct ssm_service *service, const struct ssm_range_request *request, uint64_t *start_out);
int ssm_range_free(struct ssm_service *service, uint64_t start, uint64_t end);

/* Semaphores. acquire: takes a permit for this process, whichever of its threads calls, or waits for one; those that
 * wait are served in the order in which they came (of up to 64 at once; the others in any order). SSM_E_UNAVAILABLE:
 * none in time; with timeout_ns 0 also where a stopped process has the service's lock. -EINTR, and other errors:
 * nothing was taken. `ticket`: 0 at first; a call that comes again with what it finds there then has its place in the
 * order again. NULL: it does not come again. release: gives `number` of this process's permits back, all or none.
 * SSM_E_RELEASED: it has not so many. held: how many it has. A forked child has none of its parent's. */
#define SSM_PERMITS_MAX 65535u
int ssm_semaphore_acquire(struct ssm_service *service, int64_t timeout_ns, uint64_t *ticket);
int ssm_semaphore_release(struct ssm_service *service, uint32_t number);
int ssm_semaphore_held(struct ssm_service *service);

/* Boards: the rows, for as long as the pool is attached; with SSM_READONLY they cannot be written to. Zero at first.
 * What a process has written is there whatever becomes of it; a death within a write leaves a part of it. */
#define SSM_BOARD_BYTES_MAX (UINT64_C(1) << 40)
int ssm_board_memory(struct ssm_service *service, void **memory_out, uint64_t *bytes_out);

/* What is allocated, and of an address space the free ranges, too, in order. */
struct ssm_service_item {
    uint64_t start, end; /* the same for a number */
    uint32_t owner;      /* see ssm_service_owner() */
    uint32_t allocated;
};
/* The allocator itself (al_id, al_pid, al_rmid, al_tree: <allocators.h>), without owners, as it is at one moment: how
 * many bytes it has. Copies them if there is room for all; with room 0 it only says how many. */
int64_t ssm_service_snapshot(struct ssm_service *service, void *out, uint64_t room);

/* Those that overlap start .. end, all of one moment. How many there are, of which at most `room` were written. */
int64_t ssm_service_list(struct ssm_service *service, uint64_t start, uint64_t end, struct ssm_service_item *items_out,
                         uint64_t room);

struct ssm_service_owner {
    uint32_t holder; /* id; it may be somebody else's by now */
    uint32_t alive;
    uint32_t pid; /* 0: not known any more */
    char     name[SSM_NAME_SIZE];
};
int ssm_service_owner(struct ssm_service *service, uint32_t owner, struct ssm_service_owner *out);

struct ssm_service_stats {
    char     name[SSM_NAME_SIZE];
    uint32_t kind, flags, ranges;
    uint64_t first, last; /* as in the options */
    uint64_t capacity;    /* values that can be allocated at once; addresses: ranges */
    uint64_t used, allocs, recoveries;
    uint64_t bytes; /* of the metadata area */
};
/* service_idx < SSM_SERVICE_MAX. -ENOENT: there is none. */
int ssm_service_stats(struct ssm_pool *pool, uint32_t service_idx, struct ssm_service_stats *out);

/* ---- looking in, and recovery ------------------------------------------------------------------- */

struct ssm_shard_stats {
    uint64_t free;       /* blocks on the shard's list now */
    uint64_t allocs;     /* blocks that ever left the list */
    uint64_t frees;      /* blocks that ever came back to it */
    uint64_t steals;     /* of `allocs`: taken by processes whose own shard is another */
    uint64_t recoveries; /* times its lock was taken over from a dead process */
    uint64_t waiters;    /* processes that sleep here now */
};
struct ssm_class_stats {
    uint64_t block_size, blocks;
    uint64_t free;          /* on all shards' lists */
    uint64_t cached;        /* free too, but in some process's private cache */
    uint64_t late_wakes;    /* forgotten wake-ups: 0, unless a process died or was stopped */
    uint64_t large_waiters; /* calls that wait for several blocks; they are served in turn, before those for one */
};
struct ssm_arena_stats {
    uint64_t bytes;      /* of the arena; of one that grows, the most that it can have */
    uint64_t backed;     /* of these, how many are reserved */
    uint64_t available;  /* that it can still grow by, with the memory of its file system; 0 if it does not */
    uint64_t packets;    /* that it can have at once */
    uint64_t free;       /* of those: packets it can still give */
    uint64_t used;       /* bytes of the packets that somebody holds */
    uint64_t largest;    /* bytes of the largest range that nobody holds */
    uint64_t recoveries; /* times its lock was taken over from a dead process */
    uint64_t late_wakes; /* as for a class */
};
struct ssm_ring_stats {
    char     name[SSM_NAME_SIZE];
    uint32_t id;       /* the smallest that no other ring had when it was made */
    uint32_t holder;   /* holder id */
    uint32_t users;    /* processes that have it open, those included that died and were not reaped yet */
    uint32_t unlinked; /* 1: its name is another ring's, or nobody's */
    uint64_t serial;   /* tells the order in which rings were made */
    uint32_t capacity, flags, acl;
    uint64_t depth, high_water, puts, gets, recoveries;
    uint64_t redelivered; /* of `gets`: packets that another process had before, and died */
    uint64_t drops;       /* lost because it was full: not counted in `puts` (DROP) or in `gets` (OVERWRITE) */
    uint64_t late_wakes;  /* forgotten wake-ups: 0, unless a process died or was stopped */
};
enum ssm_holder_kind {
    SSM_HOLDER_NONE,
    SSM_HOLDER_PROCESS,
    SSM_HOLDER_RING,
    SSM_HOLDER_UNLINKED /* a ring without a name, which some process has open */
};
struct ssm_holder_info {
    uint32_t id, kind; /* enum ssm_holder_kind; NONE: the slot is free, the rest is zero */
    uint32_t pid;      /* as its own PID namespace has it; 0 for a ring */
    uint32_t rmid;     /* 0: none */
    uint32_t alive;    /* 1 for a ring */
    char     name[SSM_NAME_SIZE];
    uint64_t blocks, bytes; /* block sizes added up; cached blocks do not count */
    uint64_t age_ns;        /* a process: since it attached; 0 for a ring */
};
int ssm_shard_stats(struct ssm_pool *pool, uint32_t class_idx, uint32_t shard_idx, struct ssm_shard_stats *out);
int ssm_class_stats(struct ssm_pool *pool, uint32_t class_idx, struct ssm_class_stats *out);
int ssm_arena_stats(struct ssm_pool *pool, struct ssm_arena_stats *out); /* -ENOENT: the pool has none */
int ssm_ring_stats(struct ssm_pool *pool, uint32_t holder_id, struct ssm_ring_stats *out); /* -ENOENT: no ring */
/* All `holders` slots in one pass over the blocks: `out` has room for them. */
int ssm_holder_list(struct ssm_pool *pool, struct ssm_holder_info *out, uint32_t count);

/* What one process uses, under its RMID: the resource monitoring id by which it is told from those before and after it
 * in its slot. An RMID rests for 2 ms before another process gets it. */
struct ssm_usage {
    uint32_t rmid; /* 0: every RMID has a process already */
    uint32_t pid, alive;
    uint32_t holder; /* id; UINT32_MAX: no process has this slot, the rest means nothing */
    char     name[SSM_NAME_SIZE];
    uint64_t peak_bytes;                 /* the most it has held at once, block sizes added up */
    uint64_t blocks[SSM_CLASS_MAX];      /* held now, by size class; cached ones do not count */
    uint64_t arena_packets, arena_bytes; /* held now */
};
/* All `holders` slots in one pass over the blocks: `out` has room for `count` of them. */
int ssm_usage(struct ssm_pool *pool, struct ssm_usage *out, uint32_t count);

/* Packets that are queued in a ring, oldest first, without taking them: how many handles were written. They may be gone
 * the next moment. -ENOENT: no ring has that holder id. */
int ssm_ring_peek(struct ssm_pool *pool, uint32_t holder_id, uint64_t *handles_out, uint32_t room);

struct ssm_peek {
    uint64_t length, headroom, block_size, tag;
    uint64_t next; /* the packet behind it in a chain, or SSM_NO_NEXT */
};
/* Copies up to `room` bytes of a packet that another process has. SSM_E_STALE: it is gone, or went while it was
 * copied. */
int ssm_packet_peek(struct ssm_pool *pool, uint64_t handle, uint8_t *bytes_out, uint64_t room, struct ssm_peek *out);

/* All packets that are held: how many there are, of which at most `room` were written; and the holder ids of one of
 * them, likewise. SSM_E_STALE: it is gone. */
int64_t ssm_packet_list(struct ssm_pool *pool, uint64_t *handles_out, uint64_t room);
int ssm_packet_holders(struct ssm_pool *pool, uint64_t handle, uint32_t *holders_out, uint32_t room);

struct ssm_reaped {
    uint32_t processes;
    uint64_t blocks;
}; /* the dead, and what they held, as in ssm_holder_list() */
int ssm_reap(struct ssm_pool *pool, struct ssm_reaped *out); /* what the dead held goes back; any time, by anyone */

/* Calls `report` with one sentence per contradiction, returns their number. Safe on a live pool. */
int ssm_check(struct ssm_pool *pool, void (*report)(void *context, const char *sentence), void *context);

#ifdef __cplusplus
}
#endif
#endif
