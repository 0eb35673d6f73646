// SPDX-License-Identifier: Apache-2.0
//! What this crate uses of `ssm.h`, as it is there; `ssm.h` says what each call does.

use std::os::raw::{c_char, c_int, c_void};

#[repr(C)]
pub struct Pool {
    _private: [u8; 0],
}
#[repr(C)]
pub struct Ring {
    _private: [u8; 0],
}

pub const CLASS_MAX: usize = 32;
pub const KEEP: u32 = 1;
pub const EPHEMERAL: u32 = 1;
pub const ONE_PRODUCER: u32 = 1;
pub const ONE_CONSUMER: u32 = 2;
pub const REDELIVER: u32 = 4;

pub const E_EXHAUSTED: i32 = 4097;
pub const E_TOO_LARGE: i32 = 4098;
pub const E_STALE: i32 = 4099;
pub const E_FULL: i32 = 4100;
pub const E_EMPTY: i32 = 4101;
pub const E_SHUTDOWN: i32 = 4102;
pub const E_SHARED: i32 = 4124;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct ClassSpec {
    pub block_size: u64,
    pub block_count: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct PoolOptions {
    pub size: usize,
    pub classes: [ClassSpec; CLASS_MAX],
    pub class_count: u32,
    pub shards: u32,
    pub headroom: u32,
    pub tailroom: u32,
    pub cache: u32,
    pub holders: u32,
    pub metadata_bytes: u64,
    pub flags: u32,
    pub arena_packets: u32,
    pub arena_bytes: u64,
    pub grow_bytes: u64,
    pub locks_mode: u32,
}

#[repr(C)]
pub struct AttachOptions {
    pub size: usize,
    pub name: *const c_char,
    pub flags: u32,
    pub timeout_ns: i64,
    pub path: *const c_char,
    pub before: Option<unsafe extern "C" fn() -> *mut c_void>,
    pub after: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
}

#[repr(C)]
pub struct NameOptions {
    pub size: usize,
    pub pool: *const PoolOptions,
    pub attach: *const AttachOptions,
    pub mode: u32,
    pub flags: u32,
    pub uid: u32,
    pub gid: u32,
}

#[repr(C)]
pub struct RingOptions {
    pub size: usize,
    pub capacity: u32,
    pub flags: u32,
    pub as_it_is: u32,
    pub alive_for_ns: u64,
    pub content: *const c_char,
    pub existing: u32,
}

#[repr(C)]
pub struct Packet {
    pub data: *mut u8,
    pub length: u64,
    pub headroom: u64,
    pub tailroom: u64,
    pub block_size: u64,
}

extern "C" {
    pub fn ssm_strerror(error: c_int) -> *const c_char;
    pub fn ssm_version() -> c_int;
    pub fn ssm_pool_options_init(options: *mut PoolOptions, size: usize);
    pub fn ssm_create_name(name: *const c_char, options: *const NameOptions, pool: *mut *mut Pool) -> c_int;
    pub fn ssm_open_name(name: *const c_char, options: *const NameOptions, pool: *mut *mut Pool) -> c_int;
    pub fn ssm_attach_name(
        name: *const c_char,
        options: *const AttachOptions,
        timeout_ns: i64,
        pool: *mut *mut Pool,
    ) -> c_int;
    pub fn ssm_unlink_name(name: *const c_char) -> c_int;
    pub fn ssm_close_name(name: *const c_char, pool: *mut Pool) -> c_int;
    pub fn ssm_pool_held_here(pool: *mut Pool) -> u64;
    pub fn ssm_alloc(pool: *mut Pool, size: u64, timeout_ns: i64, handle: *mut u64) -> c_int;
    pub fn ssm_free(pool: *mut Pool, handle: u64) -> c_int;
    pub fn ssm_packet_view(pool: *mut Pool, handle: u64, packet: *mut Packet) -> c_int;
    pub fn ssm_packet_tag(pool: *mut Pool, handle: u64, tag: *mut u64) -> c_int;
    pub fn ssm_packet_set_tag(pool: *mut Pool, handle: u64, tag: u64) -> c_int;
    pub fn ssm_packet_is_alone(pool: *mut Pool, handle: u64) -> c_int;
    pub fn ssm_packet_redelivered(pool: *mut Pool, handle: u64) -> c_int;
    pub fn ssm_ring_open(
        pool: *mut Pool,
        name: *const c_char,
        options: *const RingOptions,
        ring: *mut *mut Ring,
    ) -> c_int;
    pub fn ssm_ring_close(ring: *mut Ring);
    pub fn ssm_ring_put(ring: *mut Ring, handles: *const u64, count: u32, flags: u32, timeout_ns: i64) -> c_int;
    pub fn ssm_ring_get(ring: *mut Ring, handles: *mut u64, count: u32, timeout_ns: i64) -> c_int;
    pub fn ssm_ring_shutdown(ring: *mut Ring, immediate: c_int) -> c_int;
    pub fn ssm_ring_depth(ring: *mut Ring) -> u32;
    pub fn ssm_ring_capacity(ring: *const Ring) -> u32;
}
