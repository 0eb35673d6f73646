/* SPDX-License-Identifier: Apache-2.0
 *
 * ssm.hpp: owners, moves, results, and exceptions where the build has them. */
#include <ssm.hpp>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/wait.h>
#include <type_traits>
#include <unistd.h>

#define CHECK(condition)                                                             \
    do {                                                                             \
        if (!(condition)) {                                                          \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);     \
            std::abort();                                                            \
        }                                                                            \
    } while (0)

static_assert(!std::is_copy_constructible_v<ssm::Packet> && std::is_nothrow_move_constructible_v<ssm::Packet>);
static_assert(!std::is_copy_constructible_v<ssm::Ring> && std::is_nothrow_move_constructible_v<ssm::Ring>);
static_assert(!std::is_copy_assignable_v<ssm::Packet> && std::is_nothrow_move_assignable_v<ssm::Packet>);

namespace {

std::string name_here() { return "ssm-cpp-" + std::to_string(getpid()); }

std::uint64_t held(const ssm::Pool& pool) { return ssm_pool_held_here(pool.core()); }

ssm::Pool small_pool(std::uint32_t flags = SSM_EPHEMERAL)
{
    ssm_pool_options options = ssm::pool_options();
    options.class_count = 1;
    options.classes[0] = {1024, 16};
    options.flags = flags;
    ssm_name_options named{};
    named.size = sizeof named;
    named.pool = &options;
    auto made = ssm::Pool::try_create(name_here(), named);
    CHECK(made);
    return *std::move(made);
}

void test_owners()
{
    ssm::Pool pool = small_pool();
    {
        auto first = pool.try_alloc(100);
        CHECK(first && first->data().size() == 100 && first->is_alone());
        ssm::Packet one = *std::move(first);
        ssm::Packet other = std::move(one);
        CHECK(!one && other && held(pool) == 1024);
        other = *pool.try_alloc(50); /* what it had goes back */
        CHECK(held(pool) == 1024 && other.data().size() == 50);
        CHECK(other.set_tag(7) == 0 && other.tag() == 7);
    }
    CHECK(held(pool) == 0);
    auto many = pool.try_alloc_many(10, 16);
    CHECK(many && many->size() == 16 && held(pool) == 16 * 1024);
    CHECK(pool.try_alloc(10).error() == SSM_E_EXHAUSTED);
    CHECK(pool.try_alloc(4096).error() == SSM_E_TOO_LARGE);
    many->clear();
    CHECK(held(pool) == 0);
}

void test_edges()
{
    ssm::Pool pool = small_pool();
    ssm::Packet packet = *pool.try_alloc(100);
    auto added = packet.try_prepend(4);
    CHECK(added && added->size() == 4 && added->data() == packet.data().data() && packet.data().size() == 104);
    CHECK(packet.try_trim_back(54) && packet.data().size() == 50);
    CHECK(packet.try_trim_front(51).error() == SSM_E_ROOM && packet.data().size() == 50);
    CHECK(packet.try_append(2) && packet.data().size() == 52);
}

void test_rings()
{
    ssm::Pool pool = small_pool();
    ssm_ring_options options{};
    options.capacity = 4;
    ssm::Ring ring = *pool.try_ring("ring", options);
    CHECK(ring.capacity() == 4 && ring.try_get().error() == SSM_E_EMPTY);
    ssm::Packet packet = *pool.try_alloc(5);
    std::memcpy(packet.data().data(), "hello", 5);
    CHECK(ring.try_publish(packet) == 0 && packet && !packet.is_alone());
    CHECK(ring.try_put(packet) == -SSM_E_QUEUED && packet); /* it stays */
    auto got = ring.try_get(ssm::forever);
    CHECK(got && std::memcmp(got->data().data(), "hello", 5) == 0);
    packet.reset();
    ssm::Packet mine = *std::move(got);
    CHECK(ring.try_put(mine) == 0 && !mine);
    auto batch = *pool.try_alloc_many(8, 3);
    CHECK(ring.try_put_many(batch) == 0 && batch.empty() && ring.depth() == 4);
    ssm::Packet fifth = *pool.try_alloc(1);
    CHECK(ring.try_put(fifth, std::chrono::milliseconds(1)) == -SSM_E_FULL && fifth);
    CHECK(ring.try_get_many(3)->size() == 3);
    CHECK(ring.shutdown() == 0 && ring.try_put(fifth) == -SSM_E_SHUTDOWN);
    CHECK(ring.try_get() && ring.try_get().error() == SSM_E_SHUTDOWN);
}

/* A packet and a ring keep the attachment, whatever goes first. */
void test_order_of_destruction()
{
    auto pool = std::make_unique<ssm::Pool>(small_pool());
    auto ring = std::make_unique<ssm::Ring>(*pool->try_ring("ring"));
    ssm::Packet packet = *pool->try_alloc(9);
    pool.reset();
    CHECK(packet.data().size() == 9);
    CHECK(ring->try_put(packet) == 0);
    ssm::Packet again = *ring->try_get();
    ring.reset();
    CHECK(again.data().size() == 9);
    again.reset();
    CHECK(ssm::Pool::try_attach(name_here()).error() == ENOENT); /* it was ephemeral, and this was the last */
}

/* The child holds nothing of its parent: its copies give back nothing. */
void test_fork()
{
    ssm::Pool pool = small_pool();
    ssm::Ring ring = *pool.try_ring("ring");
    ssm::Packet packet = *pool.try_alloc(9);
    const pid_t child = fork();
    if (child == 0) {
        CHECK(packet.data().empty());
        packet.reset();
        ssm::Packet own = *pool.try_alloc(3);
        own.data()[0] = 42;
        _exit(ring.try_put(own) == 0 ? 0 : 1);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(packet.data().size() == 9 && packet.is_alone());
    CHECK(ring.try_get(ssm::forever)->data()[0] == 42);
}

#if SSM_HPP_EXCEPTIONS
template <class Call> int error_of(Call call)
{
    try {
        call();
    } catch (const ssm::Error& error) {
        CHECK(error.code().category() == ssm::category() && std::strlen(error.what()) > 5);
        return error.code().value();
    }
    return 0;
}

void test_exceptions()
{
    CHECK(error_of([] { ssm::Pool::attach(name_here()); }) == ENOENT);
    CHECK(error_of([] { ssm::Pool::open("a/b"); }) == EINVAL);
    ssm::Pool pool = small_pool(0);
    CHECK(error_of([] { ssm::Pool::create(name_here()); }) == EEXIST);
    CHECK(error_of([&] { pool.alloc(5000); }) == SSM_E_TOO_LARGE);
    ssm::Ring ring = pool.ring("ring");
    ring.put(pool.alloc(3));
    CHECK(ring.get().data().size() == 3);
    ring.put_many(pool.alloc_many(3, 5));
    CHECK(ring.get_many(64).size() == 5);
    CHECK(error_of([&] { ring.get(ssm::at_once); }) == SSM_E_EMPTY);
    ssm::Packet packet = pool.alloc(8);
    CHECK(error_of([&] { packet.append(1024); }) == SSM_E_ROOM);
    CHECK(packet.prepend(8).size() == 8);
    CHECK(error_of([&] { ring.shutdown(), ring.put(std::move(packet)); }) == SSM_E_SHUTDOWN);
    CHECK(held(pool) == 0); /* put took it by value */
    ssm::Pool::unlink(name_here());
    CHECK(error_of([] { ssm::Pool::unlink(name_here()); }) == ENOENT);
}
#endif

} // namespace

int main()
{
    alarm(60);
    test_owners();
    test_edges();
    test_rings();
    test_order_of_destruction();
    test_fork();
#if SSM_HPP_EXCEPTIONS
    test_exceptions();
#endif
    return 0;
}
