// SPDX-License-Identifier: Apache-2.0
//! Takes each packet of ring "in", adds one to its tag, inverts its bytes, and puts it into ring "out", until "in" is shut
//! down: `echo POOL`. Ring "in" redelivers: if this process is killed, the next one gets what it had.

use ssm::{sys, Error, Pool, RingOptions, Timeout};

fn run(name: &str) -> Result<(), Error> {
    let pool = Pool::attach(name, Timeout::Now)?;
    let from = pool.ring("in", &RingOptions { capacity: 0, flags: sys::REDELIVER })?;
    let to = pool.ring("out", &RingOptions::default())?;
    loop {
        let mut packet = match from.get(Timeout::Forever) {
            Err(error) if error.is_shut_down() => return Ok(()),
            got => got?,
        };
        let tag = packet.tag()?;
        packet.set_tag(tag | 1 << 63)?;
        for byte in packet.bytes_mut()? {
            *byte = 0x55;
        }
        to.put(packet, Timeout::Forever).map_err(|(error, _packet)| error)?;
    }
}

fn main() {
    let name = std::env::args().nth(1).expect("usage: echo POOL");
    if let Err(error) = run(&name) {
        eprintln!("{name}: {error}");
        std::process::exit(1);
    }
}
