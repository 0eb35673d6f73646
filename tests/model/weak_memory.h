/* SPDX-License-Identifier: Apache-2.0
 *
 * C11's relaxed, acquire, release and seq_cst fence as a machine that spin can explore: each location is a history of
 * messages, each message carries a view, and each thread has views. A view says, per location, which message is the
 * oldest that may still be read.
 *
 *   load      any message not older than the thread's view. Acquire: joins the message's view; relaxed: what a later
 *             acquire fence joins.
 *   store     appends a message. Release: with the thread's view; relaxed: with that of its last release fence.
 *   RMW       reads the newest message (nothing comes between), and passes its view on (release sequence).
 *   fence     acquire, release; seq_cst: joins a view that all seq_cst fences share, both ways.
 *   membarrier  a seq_cst fence on every processor at once.
 *   death     what the dead one had stored has reached everybody once its liveness lock is seen free.
 *
 * That is the release/acquire fragment of C11 (as in Kang et al., "A promising semantics for relaxed-memory
 * concurrency", 2017, without promises), with two simplifications. Stores to one location are ordered as they are
 * executed: so they are here, where each location has one writer at a time or is written by RMWs. A load does not wait for
 * a later store to go first (no load buffering): where the code relies on that order, the model swaps the two by hand.
 *
 * The including model defines LOCATIONS, MESSAGES (per location) and THREADS, and RMW_ONLY(location) where some location is
 * never loaded: then nobody sees more than its newest message.
 */
#ifndef RMW_ONLY
#define RMW_ONLY(location) 0
#endif

extern void (*uerror)(char *); /* spin's: a violation */

struct weak_message { unsigned char value, view[LOCATIONS]; };

struct weak_memory {
    struct weak_message messages[LOCATIONS][MESSAGES];
    unsigned char       newest[LOCATIONS];
    unsigned char       current[THREADS][LOCATIONS];  /* the thread's view */
    unsigned char       unfenced[THREADS][LOCATIONS]; /* what an acquire fence will join to it */
    unsigned char       released[THREADS][LOCATIONS]; /* the view at its last release fence */
    unsigned char       fenced[LOCATIONS];            /* of all seq_cst fences */
    unsigned char       ended[THREADS];               /* it reads no more */
};

enum { RLX, ACQ, REL, AR };

static struct weak_memory weak;

static void weak_join(unsigned char *into, const unsigned char *view)
{
    for (int i = 0; i < LOCATIONS; i++)
        if (into[i] < view[i])
            into[i] = view[i];
}

/* What is stored there now: for waiting without states, and for what the checks know. */
static int weak_newest(int location)
{
    return weak.messages[location][weak.newest[location]].value;
}

static void weak_lower(unsigned char *view, const int *by)
{
    for (int i = 0; i < LOCATIONS; i++)
        view[i] = view[i] > by[i] ? (unsigned char)(view[i] - by[i]) : 0;
}

/* Drops the messages that nobody can read any more, and counts from the oldest that is left: histories that differ in what
 * nobody sees are one state. */
static void weak_forget(void)
{
    int oldest[LOCATIONS], any = 0;
    for (int i = 0; i < LOCATIONS; i++) {
        oldest[i] = weak.newest[i];
        for (int t = 0; t < THREADS; t++)
            if (!weak.ended[t] && !RMW_ONLY(i) && weak.current[t][i] < oldest[i])
                oldest[i] = weak.current[t][i];
        any |= oldest[i];
    }
    if (!any)
        return;
    for (int i = 0; i < LOCATIONS; i++) {
        int kept = weak.newest[i] - oldest[i] + 1;
        memmove(weak.messages[i], weak.messages[i] + oldest[i], (size_t)kept * sizeof(struct weak_message));
        memset(weak.messages[i] + kept, 0, (size_t)(MESSAGES - kept) * sizeof(struct weak_message));
        for (int at = 0; at < kept; at++)
            weak_lower(weak.messages[i][at].view, oldest);
    }
    for (int t = 0; t < THREADS; t++) {
        weak_lower(weak.current[t], oldest);
        weak_lower(weak.unfenced[t], oldest);
        weak_lower(weak.released[t], oldest);
    }
    weak_lower(weak.fenced, oldest);
    weak_lower(weak.newest, oldest);
}

static void weak_end(int thread)
{
    weak.ended[thread] = 1;
    for (int i = 0; i < LOCATIONS; i++)
        weak.current[thread][i] = weak.unfenced[thread][i] = weak.released[thread][i] = 0;
    weak_forget();
}

static int weak_load(int thread, int location, int at, int order)
{
    const struct weak_message *m = &weak.messages[location][at];
    weak.current[thread][location] = (unsigned char)at;
    if (weak.unfenced[thread][location] < at)
        weak.unfenced[thread][location] = (unsigned char)at;
    weak_join(weak.unfenced[thread], m->view);
    if (order == ACQ || order == AR)
        weak_join(weak.current[thread], m->view);
    return m->value;
}

static void weak_append(int thread, int location, int value, int order, const unsigned char *also)
{
    int at = weak.newest[location] + 1;
    if (at >= MESSAGES)
        uerror("more stores than MESSAGES");
    struct weak_message *m = &weak.messages[location][at];
    weak.newest[location] = (unsigned char)at;
    weak.current[thread][location] = (unsigned char)at;
    if (weak.unfenced[thread][location] < at)
        weak.unfenced[thread][location] = (unsigned char)at;
    m->value = (unsigned char)value;
    weak_join(m->view, order == REL || order == AR ? weak.current[thread] : weak.released[thread]);
    if (also)
        weak_join(m->view, also);
    m->view[location] = (unsigned char)at;
}

/* The message that a read-modify-write reads. */
static int weak_rmw_read(int thread, int location, int order)
{
    return weak_load(thread, location, weak.newest[location], order);
}

static void weak_rmw_write(int thread, int location, int value, int order)
{
    unsigned char view[LOCATIONS];
    for (int i = 0; i < LOCATIONS; i++)
        view[i] = weak.messages[location][weak.newest[location]].view[i];
    weak_append(thread, location, value, order, view);
}

static void weak_fence(int thread, int order)
{
    if (order != REL)
        weak_join(weak.current[thread], weak.unfenced[thread]);
    if (order != ACQ)
        for (int i = 0; i < LOCATIONS; i++)
            weak.released[thread][i] = weak.current[thread][i];
}

static void weak_fence_seqcst(int thread)
{
    weak_fence(thread, ACQ);
    weak_join(weak.fenced, weak.current[thread]);
    weak_join(weak.current[thread], weak.fenced);
    weak_join(weak.unfenced[thread], weak.current[thread]);
    weak_fence(thread, REL);
}

static void weak_membarrier(int caller)
{
    weak_fence_seqcst(caller);
    for (int i = 0; i < THREADS; i++)
        if (!weak.ended[i])
            weak_fence_seqcst(i);
    weak_fence_seqcst(caller);
}

static void weak_death(int survivor, int dead)
{
    weak_join(weak.current[survivor], weak.current[dead]);
    weak_join(weak.unfenced[survivor], weak.current[dead]);
}
