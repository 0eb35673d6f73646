// SPDX-License-Identifier: Apache-2.0
//! Owners, errors, threads; what goes to and from Python is tests/bindings.

use ssm::{Pool, PoolOptions, Ring, RingOptions, Timeout};

fn pool(name: &str) -> (String, Pool) {
    let name = format!("ssm-rust-{}-{}", name, std::process::id());
    let options = PoolOptions::default().classes(&[(1024, 16)]).ephemeral();
    let pool = Pool::create(&name, &options, 0o600).unwrap();
    (name, pool)
}

fn ring(pool: &Pool) -> Ring {
    pool.ring("ring", &RingOptions { capacity: 4, flags: 0 }).unwrap()
}

#[test]
fn send_and_sync() {
    fn is<T: Send + Sync>() {}
    is::<Pool>();
    is::<Ring>();
    is::<ssm::Packet>();
}

#[test]
fn what_is_dropped_goes_back() {
    let (name, pool) = pool("drop");
    let packet = pool.alloc(100, Timeout::Now).unwrap();
    assert_eq!((pool.held(), packet.len().unwrap()), (1024, 100));
    drop(packet);
    assert_eq!(pool.held(), 0);
    let error = pool.alloc(5000, Timeout::Now).err().unwrap();
    assert_eq!(error.0, ssm::sys::E_TOO_LARGE);
    assert_eq!(Pool::create(&name, &PoolOptions::default(), 0).err().unwrap().0, 17);
    drop(pool); // the last one of an ephemeral pool
    assert_eq!(Pool::attach(&name, Timeout::Now).err().unwrap().0, 2);
    assert!(ssm::version() > 0);
}

#[test]
fn slices_only_of_what_nobody_else_holds() {
    let (_, pool) = pool("slices");
    let ring = ring(&pool);
    let mut packet = pool.alloc(5, Timeout::Now).unwrap();
    packet.bytes_mut().unwrap().copy_from_slice(b"hello");
    packet.set_tag(7).unwrap();
    ring.publish(&mut packet, Timeout::Now).unwrap();
    assert!(packet.bytes().unwrap_err().is_shared());
    assert!(packet.bytes_mut().unwrap_err().is_shared());
    let mut copy = [0; 8];
    assert_eq!(packet.copy_to(&mut copy).unwrap(), 5);
    assert_eq!(&copy[..5], b"hello");
    let other = ring.get(Timeout::Now).unwrap(); // the same packet, a second reference
    assert!(other.bytes().unwrap_err().is_shared());
    drop(packet);
    assert_eq!((other.bytes().unwrap(), other.tag().unwrap()), (&b"hello"[..], 7));
}

#[test]
fn what_cannot_be_put_comes_back() {
    let (_, pool) = pool("put");
    let ring = ring(&pool);
    for _ in 0..4 {
        ring.put(pool.alloc(1, Timeout::Now).unwrap(), Timeout::Now).map_err(|(e, _)| e).unwrap();
    }
    let (error, packet) = ring.put(pool.alloc(1, Timeout::Now).unwrap(), Timeout::Now).err().unwrap();
    assert!(error.is_full() && packet.is_alone().unwrap());
    assert_eq!(ring.get_many(64, Timeout::Now).unwrap().len(), 4);
    assert!(ring.get(Timeout::Now).err().unwrap().is_empty());
    ring.shutdown().unwrap();
    let (error, _) = ring.put(packet, Timeout::Forever).err().unwrap();
    assert!(error.is_shut_down());
}

#[test]
fn packets_of_another_attachment_are_refused() {
    let (name, pool) = pool("other");
    let ring = ring(&pool);
    let other = Pool::attach(&name, Timeout::Now).unwrap();
    let (error, _) = ring.put(other.alloc(1, Timeout::Now).unwrap(), Timeout::Now).err().unwrap();
    assert_eq!(error.0, 22);
}

#[test]
fn threads_share_a_pool_and_its_rings() {
    let (_, pool) = pool("threads");
    let ring = ring(&pool);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..1000 {
                let mut packet = pool.alloc(8, Timeout::Forever).unwrap();
                packet.set_tag(number).unwrap();
                ring.put(packet, Timeout::Forever).map_err(|(e, _)| e).unwrap();
            }
        });
        for number in 0..1000 {
            assert_eq!(ring.get(Timeout::Forever).unwrap().tag().unwrap(), number);
        }
    });
    assert_eq!(pool.held(), 0);
}
