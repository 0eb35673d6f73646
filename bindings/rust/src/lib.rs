// SPDX-License-Identifier: Apache-2.0
//! A packet pool for processes, in shared memory: nothing is copied, and any process may be killed at any time.
//!
//! ```no_run
//! # fn main() -> Result<(), ssm::Error> {
//! let pool = ssm::Pool::open("lab")?;
//! let ring = pool.ring("frames", &ssm::RingOptions::default())?;
//! let mut packet = pool.alloc(5, ssm::Timeout::Forever)?;
//! packet.bytes_mut()?.copy_from_slice(b"hello");
//! ring.put(packet, ssm::Timeout::Forever).map_err(|(error, _packet)| error)?;
//! # Ok(()) }
//! ```
//!
//! # Soundness
//!
//! The bytes of a packet may be changed by any process that holds the packet, at any time, and Rust's references promise
//! that nobody does so. Hence a slice comes out of a packet only while this process is its one holder
//! ([`Packet::bytes`], [`Packet::bytes_mut`]; [`Error::is_shared`] otherwise), and the packet cannot be shared while the
//! slice lives: [`Ring::put`] takes it by value, [`Ring::publish`] borrows it mutably. What others may hold as well is
//! copied by raw pointers: [`Packet::copy_to`]. This trusts the processes that attach: one with a bug can write anywhere
//! in the pool, as it could with any memory that is shared.
//!
//! # Threads
//!
//! The C library takes calls of any thread, so [`Pool`] and [`Ring`] are `Send` and `Sync`. A [`Packet`] is `Send`; it is
//! `Sync` as well, since through `&Packet` bytes are only read. A forked child is a new holder: packets of its
//! parent answer [`Error::is_stale`] there, and dropping them gives nothing back.

use std::ffi::{CStr, CString};
use std::fmt;
use std::mem::{size_of, ManuallyDrop, MaybeUninit};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

pub mod sys;

/// An error number: a positive errno, or `SSM_E_*` of ssm.h.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Error(pub i32);

impl Error {
    pub fn is_stale(self) -> bool {
        self.0 == sys::E_STALE
    }
    pub fn is_shared(self) -> bool {
        self.0 == sys::E_SHARED
    }
    pub fn is_full(self) -> bool {
        self.0 == sys::E_FULL
    }
    pub fn is_empty(self) -> bool {
        self.0 == sys::E_EMPTY
    }
    pub fn is_shut_down(self) -> bool {
        self.0 == sys::E_SHUTDOWN
    }
    pub fn is_exhausted(self) -> bool {
        self.0 == sys::E_EXHAUSTED
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: the sentence is static, or strerror's.
        let text = unsafe { CStr::from_ptr(sys::ssm_strerror(self.0)) };
        f.write_str(&text.to_string_lossy())
    }
}

impl std::error::Error for Error {}

pub type Result<T> = std::result::Result<T, Error>;

fn check(result: i32) -> Result<i32> {
    if result < 0 {
        Err(Error(-result))
    } else {
        Ok(result)
    }
}

const EINVAL: i32 = 22;

fn c_name(name: &str) -> Result<CString> {
    CString::new(name).map_err(|_| Error(EINVAL))
}

/// How long a call waits.
#[derive(Clone, Copy, Debug)]
pub enum Timeout {
    Now,
    After(Duration),
    Forever,
}

impl Timeout {
    fn ns(self) -> i64 {
        match self {
            Timeout::Now => 0,
            Timeout::After(time) => i64::try_from(time.as_nanos()).unwrap_or(i64::MAX),
            Timeout::Forever => -1,
        }
    }
}

/// The library that this program runs with: 10203 is 1.2.3.
pub fn version() -> i32 {
    // SAFETY: takes nothing.
    unsafe { sys::ssm_version() }
}

/// What a new pool is.
#[derive(Clone)]
pub struct PoolOptions(sys::PoolOptions);

impl Default for PoolOptions {
    /// The values of the C library's build.
    fn default() -> Self {
        let mut options = MaybeUninit::<sys::PoolOptions>::zeroed();
        // SAFETY: all zeros are such options; the call writes no more than the size that it is told.
        unsafe {
            sys::ssm_pool_options_init(options.as_mut_ptr(), size_of::<sys::PoolOptions>());
            PoolOptions(options.assume_init())
        }
    }
}

impl PoolOptions {
    /// Bytes of a block, and how many there are of them; ascending, up to 32.
    pub fn classes(mut self, classes: &[(u64, u32)]) -> Self {
        let count = classes.len().min(sys::CLASS_MAX);
        for (to, &(block_size, block_count)) in self.0.classes.iter_mut().zip(classes) {
            *to = sys::ClassSpec { block_size, block_count };
        }
        self.0.class_count = count as u32;
        self
    }
    /// The name goes with the last living process.
    pub fn ephemeral(mut self) -> Self {
        self.0.flags |= sys::EPHEMERAL;
        self
    }
}

struct Attachment {
    core: *mut sys::Pool,
    name: CString,
}

// SAFETY: ssm.h: calls on one attachment may come from any thread; it is not attached with SSM_SERIAL.
unsafe impl Send for Attachment {}
unsafe impl Sync for Attachment {}

impl Drop for Attachment {
    fn drop(&mut self) {
        // SAFETY: the last owner; each packet and ring has one, so none is left, and nothing is pinned.
        unsafe { sys::ssm_close_name(self.name.as_ptr(), self.core) };
    }
}

/// This process's attachment to a pool. It is closed when the last `Pool`, `Ring` and `Packet` of it is gone.
#[derive(Clone)]
pub struct Pool(Arc<Attachment>);

impl Pool {
    fn by_name(name: &str, call: impl FnOnce(&CStr, *mut *mut sys::Pool) -> i32) -> Result<Pool> {
        let name = c_name(name)?;
        let mut core = ptr::null_mut();
        check(call(&name, &mut core))?;
        Ok(Pool(Arc::new(Attachment { core, name })))
    }

    /// Attaches to the pool of that name, or creates it.
    pub fn open(name: &str) -> Result<Pool> {
        // SAFETY: no options is allowed.
        Pool::by_name(name, |name, pool| unsafe { sys::ssm_open_name(name.as_ptr(), ptr::null(), pool) })
    }

    /// Creates it, with these permissions exactly. EEXIST where something has the name.
    pub fn create(name: &str, options: &PoolOptions, mode: u32) -> Result<Pool> {
        let named = sys::NameOptions {
            size: size_of::<sys::NameOptions>(),
            pool: &options.0,
            attach: ptr::null(),
            mode,
            flags: 0,
            uid: 0,
            gid: 0,
        };
        // SAFETY: both structs live until the call returns.
        Pool::by_name(name, |name, pool| unsafe { sys::ssm_create_name(name.as_ptr(), &named, pool) })
    }

    /// Attaches to a pool that is there, or comes in time. ENOENT.
    pub fn attach(name: &str, timeout: Timeout) -> Result<Pool> {
        // SAFETY: no options is allowed.
        Pool::by_name(name, |name, pool| unsafe {
            sys::ssm_attach_name(name.as_ptr(), ptr::null(), timeout.ns(), pool)
        })
    }

    /// Removes the name; those who are attached keep the pool.
    pub fn unlink(name: &str) -> Result<()> {
        let name = c_name(name)?;
        // SAFETY: a string.
        check(unsafe { sys::ssm_unlink_name(name.as_ptr()) }).map(drop)
    }

    /// A packet of that many bytes. What they contain is left over from others.
    pub fn alloc(&self, bytes: u64, timeout: Timeout) -> Result<Packet> {
        let mut handle = 0;
        // SAFETY: the attachment lives.
        check(unsafe { sys::ssm_alloc(self.0.core, bytes, timeout.ns(), &mut handle) })?;
        Ok(Packet { pool: self.0.clone(), handle })
    }

    /// Opens a ring, or creates it.
    pub fn ring(&self, name: &str, options: &RingOptions) -> Result<Ring> {
        let name = c_name(name)?;
        let options = sys::RingOptions {
            size: size_of::<sys::RingOptions>(),
            capacity: options.capacity,
            flags: options.flags,
            as_it_is: !options.flags, // a ring that is there may have others
            alive_for_ns: 0,
            content: ptr::null(),
            existing: 0,
        };
        let mut core = ptr::null_mut();
        // SAFETY: the options live until the call returns.
        check(unsafe { sys::ssm_ring_open(self.0.core, name.as_ptr(), &options, &mut core) })?;
        Ok(Ring { core, pool: self.0.clone() })
    }

    /// Bytes of the blocks that this process holds.
    pub fn held(&self) -> u64 {
        // SAFETY: the attachment lives.
        unsafe { sys::ssm_pool_held_here(self.0.core) }
    }
}

/// One reference to a packet; dropping it gives it back.
pub struct Packet {
    pool: Arc<Attachment>,
    handle: u64,
}

impl Packet {
    pub fn handle(&self) -> u64 {
        self.handle
    }

    fn view(&self) -> Result<sys::Packet> {
        let mut view = MaybeUninit::uninit();
        // SAFETY: written where the call succeeds.
        check(unsafe { sys::ssm_packet_view(self.pool.core, self.handle, view.as_mut_ptr()) })?;
        Ok(unsafe { view.assume_init() })
    }

    pub fn len(&self) -> Result<usize> {
        Ok(self.view()?.length as usize)
    }

    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Whether no other process and no ring holds it, and this process has one reference.
    pub fn is_alone(&self) -> Result<bool> {
        // SAFETY: the attachment lives.
        check(unsafe { sys::ssm_packet_is_alone(self.pool.core, self.handle) }).map(|alone| alone == 1)
    }

    fn alone(&self) -> Result<sys::Packet> {
        if !self.is_alone()? {
            return Err(Error(sys::E_SHARED));
        }
        self.view()
    }

    /// Its bytes, in place. `is_shared` where somebody else could change them meanwhile.
    pub fn bytes(&self) -> Result<&[u8]> {
        let view = self.alone()?;
        // SAFETY: nobody else holds it; to share it, `publish` takes &mut self and `put` takes self.
        Ok(unsafe { std::slice::from_raw_parts(view.data, view.length as usize) })
    }

    /// Its bytes, to be written. `is_shared` where somebody else holds it as well.
    pub fn bytes_mut(&mut self) -> Result<&mut [u8]> {
        let view = self.alone()?;
        // SAFETY: as above, and &mut self.
        Ok(unsafe { std::slice::from_raw_parts_mut(view.data, view.length as usize) })
    }

    /// Copies it, whoever else holds it; what is written meanwhile is copied in parts. Returns how many bytes.
    pub fn copy_to(&self, to: &mut [u8]) -> Result<usize> {
        let view = self.view()?;
        let count = to.len().min(view.length as usize);
        for (i, byte) in to[..count].iter_mut().enumerate() {
            // SAFETY: within the packet. Volatile: another process may write meanwhile, so no value is assumed to stay.
            *byte = unsafe { ptr::read_volatile(view.data.add(i)) };
        }
        Ok(count)
    }

    pub fn tag(&self) -> Result<u64> {
        let mut tag = 0;
        // SAFETY: the attachment lives.
        check(unsafe { sys::ssm_packet_tag(self.pool.core, self.handle, &mut tag) })?;
        Ok(tag)
    }

    pub fn set_tag(&mut self, tag: u64) -> Result<()> {
        // SAFETY: the attachment lives.
        check(unsafe { sys::ssm_packet_set_tag(self.pool.core, self.handle, tag) }).map(drop)
    }

    /// Whether another process had it out of a redelivering ring, and died.
    pub fn redelivered(&self) -> bool {
        // SAFETY: the attachment lives.
        unsafe { sys::ssm_packet_redelivered(self.pool.core, self.handle) == 1 }
    }

    /// The reference is a ring's: only the attachment is let go.
    fn forget(self) {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not used again, and its handle needs no drop.
        unsafe { ptr::drop_in_place(&mut this.pool) };
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        // SAFETY: the attachment lives. Stale in a forked child, which holds nothing of it.
        unsafe { sys::ssm_free(self.pool.core, self.handle) };
    }
}

/// What a ring has to be; 0 is as it is, or as the build has it.
#[derive(Clone, Copy, Default)]
pub struct RingOptions {
    pub capacity: u32,
    /// [`sys::ONE_PRODUCER`], [`sys::ONE_CONSUMER`], [`sys::REDELIVER`].
    pub flags: u32,
}

pub struct Ring {
    core: *mut sys::Ring,
    pool: Arc<Attachment>,
}

// SAFETY: as for Attachment.
unsafe impl Send for Ring {}
unsafe impl Sync for Ring {}

impl Ring {
    /// Hands the packet over. It comes back with the error where that fails.
    pub fn put(&self, packet: Packet, timeout: Timeout) -> std::result::Result<(), (Error, Packet)> {
        // A handle says nothing of the pool that it is of.
        if !Arc::ptr_eq(&self.pool, &packet.pool) {
            return Err((Error(EINVAL), packet));
        }
        // SAFETY: one handle.
        match check(unsafe { sys::ssm_ring_put(self.core, &packet.handle, 1, 0, timeout.ns()) }) {
            Ok(_) => {
                packet.forget();
                Ok(())
            }
            Err(error) => Err((error, packet)),
        }
    }

    /// Puts it, and keeps this reference: from now on others may hold it, too.
    pub fn publish(&self, packet: &mut Packet, timeout: Timeout) -> Result<()> {
        if !Arc::ptr_eq(&self.pool, &packet.pool) {
            return Err(Error(EINVAL));
        }
        // SAFETY: one handle.
        check(unsafe { sys::ssm_ring_put(self.core, &packet.handle, 1, sys::KEEP, timeout.ns()) }).map(drop)
    }

    pub fn get(&self, timeout: Timeout) -> Result<Packet> {
        let mut handle = 0;
        // SAFETY: room for one handle.
        check(unsafe { sys::ssm_ring_get(self.core, &mut handle, 1, timeout.ns()) })?;
        Ok(Packet { pool: self.pool.clone(), handle })
    }

    /// 1 .. `count` packets; waits for the first one.
    pub fn get_many(&self, count: usize, timeout: Timeout) -> Result<Vec<Packet>> {
        let mut handles = vec![0; count];
        // SAFETY: room for as many handles as it is told.
        let got = check(unsafe { sys::ssm_ring_get(self.core, handles.as_mut_ptr(), count as u32, timeout.ns()) })?;
        handles.truncate(got as usize);
        Ok(handles.into_iter().map(|handle| Packet { pool: self.pool.clone(), handle }).collect())
    }

    /// No more puts; what is there can be got.
    pub fn shutdown(&self) -> Result<()> {
        // SAFETY: the ring is open.
        check(unsafe { sys::ssm_ring_shutdown(self.core, 0) }).map(drop)
    }

    pub fn depth(&self) -> u32 {
        // SAFETY: the ring is open.
        unsafe { sys::ssm_ring_depth(self.core) }
    }

    pub fn capacity(&self) -> u32 {
        // SAFETY: the ring is open.
        unsafe { sys::ssm_ring_capacity(self.core) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: it is open, and the attachment lives: its owner is dropped after this.
        unsafe { sys::ssm_ring_close(self.core) };
    }
}
