/* SPDX-License-Identifier: Apache-2.0
 *
 * Boards of a pool: the buffer protocol; see service.h. The rest is Python (ssm/board.py). A view of a board keeps the
 * pool's memory mapped after the pool was closed, as views of packets do. */
#include "service.h"

static int board_getbuffer(struct service_object *self, Py_buffer *view, int flags)
{
    struct pool_object *pool = self->pool;
    void *memory = NULL;
    uint64_t bytes = 0;
    int result;
    POOL_LOCK(pool)
    result = pool->closed ? -SSM_E_CLOSED : ssm_board_memory(self->core, &memory, &bytes);
    if (result == 0 && PyBuffer_FillInfo(view, OBJECT(self), memory, (Py_ssize_t)bytes, pool->readonly, flags) == 0)
        pool->exports++;
    else
        view->obj = NULL;
    POOL_UNLOCK()
    if (result != 0)
        service_raise(self, result);
    return view->obj != NULL ? 0 : -1;
}

static void board_releasebuffer(struct service_object *self, Py_buffer *view)
{
    struct pool_object *pool = self->pool;
    (void)view;
    POOL_LOCK(pool)
    pool->exports--;
    pool_settle(pool);
    POOL_UNLOCK()
}

static PyType_Slot board_slots[] = {
    {Py_tp_doc, "What ssm.Board is built on."},
    {Py_bf_getbuffer, board_getbuffer},
    {Py_bf_releasebuffer, board_releasebuffer},
    {0, NULL},
};

PyType_Spec board_spec = {
    .name = "ssm._core.Board",
    .basicsize = sizeof(struct service_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = board_slots,
};
