//! Random bytes from the kernel.

use std::io;

use edge_auth::secret::RANDOM_BYTES;
use rustix::rand::{GetRandomFlags, getrandom};

/// Fresh random bytes. Early in a boot it waits until the kernel has some.
pub(crate) fn bytes() -> io::Result<[u8; RANDOM_BYTES]> {
    let mut bytes = [0; RANDOM_BYTES];
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}
