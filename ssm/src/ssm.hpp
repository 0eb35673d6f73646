/* SPDX-License-Identifier: Apache-2.0
 *
 * ssm for C++17 and later: what ssm.h has, with owners. Header only; link with the C library.
 *
 *     auto pool = ssm::Pool::open("lab");
 *     auto ring = pool.ring("frames");
 *     auto packet = pool.alloc(1500);                 // goes back by itself
 *     std::memcpy(packet.data().data(), frame, 1500);
 *     ring.put(std::move(packet));                    // handed over, not copied
 *     for (auto& got : ring.get_many(64)) use(got.data());
 *
 * Errors. Each call that can fail comes twice: `alloc` throws ssm::Error, `try_alloc` returns a Result and throws nothing.
 * With -fno-exceptions only the second ones are there.
 * Owners. A Pool, a Ring and a Packet can be moved and not copied. A Ring and a Packet keep the attachment: it is closed
 * when the last of them is gone. A moved-from object may only be destroyed or assigned to.
 * Threads: as for ssm.h. One object is for one thread at a time.
 * Time-outs are std::chrono durations; ssm::forever does not give up. */
#ifndef SSM_HPP
#define SSM_HPP

#include <ssm.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#if __cplusplus >= 202002L
#include <span>
#endif
#if defined(__cpp_exceptions) || defined(__EXCEPTIONS)
#define SSM_HPP_EXCEPTIONS 1
#else
#define SSM_HPP_EXCEPTIONS 0
#endif

namespace ssm {

#if __cplusplus >= 202002L
template <class T> using Span = std::span<T>;
#else
/* What std::span is from C++20 on, as far as it is needed here. */
template <class T> class Span {
public:
    Span() noexcept = default;
    Span(T* data, std::size_t size) noexcept : data_(data), size_(size) {}
    T* data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    bool empty() const noexcept { return size_ == 0; }
    T* begin() const noexcept { return data_; }
    T* end() const noexcept { return data_ + size_; }
    T& operator[](std::size_t i) const noexcept { return data_[i]; }

private:
    T* data_ = nullptr;
    std::size_t size_ = 0;
};
#endif

using Duration = std::chrono::nanoseconds;
inline constexpr Duration forever{SSM_FOREVER};
inline constexpr Duration at_once{0};

/* ---- errors ----------------------------------------------------------------------------------------------------- */

class Category final : public std::error_category {
public:
    const char* name() const noexcept override { return "ssm"; }
    std::string message(int error) const override { return ssm_strerror(error); }
};
inline const std::error_category& category() noexcept
{
    static const Category one;
    return one;
}
/* Of a positive errno or SSM_E_*. */
inline std::error_code code(int error) noexcept { return {error < 0 ? -error : error, category()}; }

/* code().value() is a positive errno or SSM_E_*. */
class Error : public std::system_error {
public:
    Error(int error, const std::string& what) : std::system_error(ssm::code(error), what) {}
};

/* A value, or the positive number of an error. As std::expected of C++23, as far as it is needed here. */
template <class T> class Result {
public:
    static Result failed(int error) noexcept { return Result(error < 0 ? -error : error); }
    Result(T value) : value_(std::make_unique<T>(std::move(value))) {}
    explicit operator bool() const noexcept { return value_ != nullptr; }
    bool has_value() const noexcept { return value_ != nullptr; }
    int error() const noexcept { return error_; }
    T& operator*() & noexcept { return *value_; }
    T&& operator*() && noexcept { return std::move(*value_); }
    T* operator->() noexcept { return value_.get(); }
#if SSM_HPP_EXCEPTIONS
    T value(const char* what) &&
    {
        if (!value_)
            throw Error(error_, what);
        return std::move(*value_);
    }
#endif

private:
    explicit Result(int error) noexcept : error_(error) {}
    std::unique_ptr<T> value_;
    int error_ = 0;
};

#if SSM_HPP_EXCEPTIONS
inline int check(int result, const char* what)
{
    if (result < 0)
        throw Error(result, what);
    return result;
}
#endif

/* ---- the attachment --------------------------------------------------------------------------------------------- */

namespace detail {
/* Closed when the last Pool, Ring and Packet of it is gone. */
struct Attachment {
    std::string name; /* empty: attached by a descriptor */
    ssm_pool* core;
    Attachment(std::string its_name, ssm_pool* pool) noexcept : name(std::move(its_name)), core(pool) {}
    Attachment(const Attachment&) = delete;
    Attachment& operator=(const Attachment&) = delete;
    ~Attachment()
    {
        if (!name.empty()) {
            ssm_close_name(name.c_str(), core); /* nothing is pinned: this header does not pin */
        } else if (ssm_pool_close(core) == 0) {
            ssm_pool_destroy(core);
        }
    }
};
using Shared = std::shared_ptr<Attachment>;
} // namespace detail

/* ---- packets ---------------------------------------------------------------------------------------------------- */

/* One reference to a packet: given back by the destructor, unless a put took it. */
class Packet {
public:
    Packet(detail::Shared pool, std::uint64_t handle) noexcept : pool_(std::move(pool)), handle_(handle) {}
    Packet(Packet&& other) noexcept : pool_(std::move(other.pool_)), handle_(other.handle_) {}
    Packet& operator=(Packet&& other) noexcept
    {
        if (this != &other) {
            reset();
            pool_ = std::move(other.pool_);
            handle_ = other.handle_;
        }
        return *this;
    }
    ~Packet() { reset(); }

    std::uint64_t handle() const noexcept { return handle_; }
    explicit operator bool() const noexcept { return pool_ != nullptr; }
    /* Gives the reference back now. */
    void reset() noexcept
    {
        if (pool_)
            ssm_free(pool_->core, handle_); /* stale: a forked child does not hold what its parent held */
        pool_.reset();
    }
    /* The reference is the caller's from now on. */
    std::uint64_t release() noexcept
    {
        pool_.reset();
        return handle_;
    }

    /* Its bytes, in place; valid until an edge moves, or the packet goes. Empty for a packet that this process does not
     * hold. */
    Span<std::uint8_t> data() const noexcept
    {
        ssm_packet view{};
        if (ssm_packet_view(pool_->core, handle_, &view) != 0)
            return {};
        return {view.data, static_cast<std::size_t>(view.length)};
    }
    std::uint64_t tag() const noexcept
    {
        std::uint64_t tag = 0;
        ssm_packet_tag(pool_->core, handle_, &tag);
        return tag;
    }
    int set_tag(std::uint64_t tag) noexcept { return ssm_packet_set_tag(pool_->core, handle_, tag); }
    /* Whether nobody else holds it, so that nobody else can write to it. */
    bool is_alone() const noexcept { return ssm_packet_is_alone(pool_->core, handle_) == 1; }
    bool redelivered() const noexcept { return ssm_packet_redelivered(pool_->core, handle_) == 1; }

    /* Move an edge; what was added or removed. SSM_E_ROOM: nothing has changed. */
    Result<Span<std::uint8_t>> try_prepend(std::uint64_t bytes) noexcept { return edge(ssm_packet_prepend, bytes); }
    Result<Span<std::uint8_t>> try_append(std::uint64_t bytes) noexcept { return edge(ssm_packet_append, bytes); }
    Result<Span<std::uint8_t>> try_trim_front(std::uint64_t bytes) noexcept { return edge(ssm_packet_trim_front, bytes); }
    Result<Span<std::uint8_t>> try_trim_back(std::uint64_t bytes) noexcept { return edge(ssm_packet_trim_back, bytes); }
#if SSM_HPP_EXCEPTIONS
    Span<std::uint8_t> prepend(std::uint64_t bytes) { return try_prepend(bytes).value("prepend"); }
    Span<std::uint8_t> append(std::uint64_t bytes) { return try_append(bytes).value("append"); }
    Span<std::uint8_t> trim_front(std::uint64_t bytes) { return try_trim_front(bytes).value("trim_front"); }
    Span<std::uint8_t> trim_back(std::uint64_t bytes) { return try_trim_back(bytes).value("trim_back"); }
#endif

private:
    using Move = int (*)(ssm_pool*, std::uint64_t, std::uint64_t, std::uint8_t**);
    Result<Span<std::uint8_t>> edge(Move move, std::uint64_t bytes) noexcept
    {
        std::uint8_t* start = nullptr;
        const int result = move(pool_->core, handle_, bytes, &start);
        if (result != 0)
            return Result<Span<std::uint8_t>>::failed(result);
        return Span<std::uint8_t>(start, static_cast<std::size_t>(bytes));
    }

    detail::Shared pool_;
    std::uint64_t handle_;
};

/* ---- rings ------------------------------------------------------------------------------------------------------ */

class Ring {
public:
    Ring(detail::Shared pool, ssm_ring* core) noexcept : pool_(std::move(pool)), core_(core) {}
    Ring(Ring&& other) noexcept : pool_(std::move(other.pool_)), core_(std::exchange(other.core_, nullptr)) {}
    Ring& operator=(Ring&& other) noexcept
    {
        std::swap(pool_, other.pool_);
        std::swap(core_, other.core_);
        return *this;
    }
    ~Ring()
    {
        if (core_)
            ssm_ring_close(core_);
    }

    ssm_ring* core() const noexcept { return core_; }
    std::uint32_t capacity() const noexcept { return ssm_ring_capacity(core_); }
    std::uint32_t depth() const noexcept { return ssm_ring_depth(core_); }
    int shutdown(bool immediate = false) noexcept { return ssm_ring_shutdown(core_, immediate); }

    /* 0, and the packet is the ring's; the number that an overflowing ring dropped; or -errno, and the packet stays. */
    int try_put(Packet& packet, Duration timeout = at_once) noexcept
    {
        const std::uint64_t handle = packet.handle();
        const int result = ssm_ring_put(core_, &handle, 1, 0, timeout.count());
        if (result >= 0)
            packet.release();
        return result;
    }
    /* All or none. */
    int try_put_many(std::vector<Packet>& packets, Duration timeout = at_once)
    {
        std::vector<std::uint64_t> handles;
        handles.reserve(packets.size());
        for (const Packet& packet : packets)
            handles.push_back(packet.handle());
        const int result = ssm_ring_put(core_, handles.data(), static_cast<std::uint32_t>(handles.size()), 0, timeout.count());
        if (result < 0)
            return result;
        for (Packet& packet : packets)
            packet.release();
        packets.clear();
        return result;
    }
    /* Keeps this process's reference as well, so that one packet can go into several rings. */
    int try_publish(const Packet& packet, Duration timeout = at_once) noexcept
    {
        const std::uint64_t handle = packet.handle();
        return ssm_ring_put(core_, &handle, 1, SSM_KEEP, timeout.count());
    }
    Result<Packet> try_get(Duration timeout = at_once) noexcept
    {
        std::uint64_t handle = 0;
        const int result = ssm_ring_get(core_, &handle, 1, timeout.count());
        return result < 0 ? Result<Packet>::failed(result) : Result<Packet>(Packet(pool_, handle));
    }
    /* 1 .. count packets; waits for the first one. */
    Result<std::vector<Packet>> try_get_many(std::uint32_t count, Duration timeout = at_once)
    {
        std::vector<std::uint64_t> handles(count);
        std::vector<Packet> packets;
        packets.reserve(count); /* before they are taken: nothing may fail afterwards */
        const int result = ssm_ring_get(core_, handles.data(), count, timeout.count());
        if (result < 0)
            return Result<std::vector<Packet>>::failed(result);
        for (int i = 0; i < result; i++)
            packets.emplace_back(pool_, handles[static_cast<std::size_t>(i)]);
        return packets;
    }
#if SSM_HPP_EXCEPTIONS
    /* By value: what cannot be put goes back to the pool. */
    int put(Packet packet, Duration timeout = forever) { return check(try_put(packet, timeout), "put"); }
    int put_many(std::vector<Packet> packets, Duration timeout = forever)
    {
        return check(try_put_many(packets, timeout), "put_many");
    }
    int publish(const Packet& packet, Duration timeout = forever) { return check(try_publish(packet, timeout), "publish"); }
    Packet get(Duration timeout = forever) { return try_get(timeout).value("get"); }
    std::vector<Packet> get_many(std::uint32_t count, Duration timeout = forever)
    {
        return try_get_many(count, timeout).value("get_many");
    }
#endif

private:
    detail::Shared pool_; /* after the destructor's body: the ring is closed before the attachment */
    ssm_ring* core_;
};

/* ---- pools ------------------------------------------------------------------------------------------------------ */

inline ssm_pool_options pool_options() noexcept
{
    ssm_pool_options options;
    ssm_pool_options_default(&options);
    return options;
}

class Pool {
public:
    /* The pool that is there, or a new one; a new one only; one that is there, or comes in time. */
    static Result<Pool> try_open(const std::string& name, ssm_name_options options = {})
    {
        return by_name(name, [&](ssm_pool** pool) { return ssm_open_name(name.c_str(), &options, pool); });
    }
    static Result<Pool> try_create(const std::string& name, ssm_name_options options = {})
    {
        return by_name(name, [&](ssm_pool** pool) { return ssm_create_name(name.c_str(), &options, pool); });
    }
    static Result<Pool> try_attach(const std::string& name, Duration timeout = at_once, ssm_attach_options options = {})
    {
        return by_name(name,
                       [&](ssm_pool** pool) { return ssm_attach_name(name.c_str(), &options, timeout.count(), pool); });
    }
    static int try_unlink(const std::string& name) noexcept { return ssm_unlink_name(name.c_str()); }
#if SSM_HPP_EXCEPTIONS
    static Pool open(const std::string& name, ssm_name_options options = {})
    {
        return try_open(name, options).value(name.c_str());
    }
    static Pool create(const std::string& name, ssm_name_options options = {})
    {
        return try_create(name, options).value(name.c_str());
    }
    static Pool attach(const std::string& name, Duration timeout = at_once, ssm_attach_options options = {})
    {
        return try_attach(name, timeout, options).value(name.c_str());
    }
    static void unlink(const std::string& name) { check(try_unlink(name), name.c_str()); }
#endif

    ssm_pool* core() const noexcept { return shared_->core; }

    Result<Packet> try_alloc(std::uint64_t bytes, Duration timeout = at_once) noexcept
    {
        std::uint64_t handle = 0;
        const int result = ssm_alloc(core(), bytes, timeout.count(), &handle);
        return result < 0 ? Result<Packet>::failed(result) : Result<Packet>(Packet(shared_, handle));
    }
    /* All or nothing. */
    Result<std::vector<Packet>> try_alloc_many(std::uint64_t bytes, std::uint32_t count, Duration timeout = at_once)
    {
        std::vector<std::uint64_t> handles(count);
        std::vector<Packet> packets;
        packets.reserve(count);
        const int result = ssm_alloc_many(core(), bytes, count, timeout.count(), handles.data());
        if (result < 0)
            return Result<std::vector<Packet>>::failed(result);
        for (const std::uint64_t handle : handles)
            packets.emplace_back(shared_, handle);
        return packets;
    }
    Result<Ring> try_ring(const std::string& name, ssm_ring_options options = {})
    {
        ssm_ring* ring = nullptr;
        const int result = ssm_ring_open(core(), name.c_str(), &options, &ring);
        return result < 0 ? Result<Ring>::failed(result) : Result<Ring>(Ring(shared_, ring));
    }
#if SSM_HPP_EXCEPTIONS
    Packet alloc(std::uint64_t bytes, Duration timeout = at_once) { return try_alloc(bytes, timeout).value("alloc"); }
    std::vector<Packet> alloc_many(std::uint64_t bytes, std::uint32_t count, Duration timeout = at_once)
    {
        return try_alloc_many(bytes, count, timeout).value("alloc_many");
    }
    Ring ring(const std::string& name, ssm_ring_options options = {})
    {
        return try_ring(name, options).value(name.c_str());
    }
#endif

private:
    explicit Pool(detail::Shared shared) noexcept : shared_(std::move(shared)) {}
    template <class Call> static Result<Pool> by_name(const std::string& name, Call call)
    {
        ssm_pool* pool = nullptr;
        const int result = call(&pool);
        if (result < 0)
            return Result<Pool>::failed(result);
        return Pool(std::make_shared<detail::Attachment>(name, pool));
    }

    detail::Shared shared_;
};

} // namespace ssm
#endif
