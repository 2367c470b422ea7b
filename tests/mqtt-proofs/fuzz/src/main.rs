//! libFuzzer around one target of `mqtt-proofs`, named by `EDGE_FUZZ_TARGET`.
//!
//! Besides panics it looks for growth: an execution that holds more than its limit at once is ended by
//! the allocator, and what is still held after it is counted over many executions.
#![no_main]

use std::alloc::System;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use cap::Cap;
use libfuzzer_sys::fuzz_target;
use mqtt_proofs::{HELD_BYTES_MAX, Target};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

static TARGET: OnceLock<&'static Target> = OnceLock::new();
static EXECUTIONS: AtomicU64 = AtomicU64::new(0);
/// What was held after the first executions, with all that is made once.
static BASE_BYTES: AtomicUsize = AtomicUsize::new(0);

fuzz_target!(|data: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("EDGE_FUZZ_TARGET").expect("EDGE_FUZZ_TARGET names a target");
        mqtt_proofs::target(&name).expect("a target of mqtt-proofs")
    });
    let before = ALLOCATOR.allocated();
    ALLOCATOR.set_limit(before + HELD_BYTES_MAX).expect("above what is held");
    (target.run)(data);
    ALLOCATOR.set_limit(usize::MAX).expect("above what is held");
    let after = ALLOCATOR.allocated();
    match EXECUTIONS.fetch_add(1, Ordering::Relaxed) {
        0..1_000 => BASE_BYTES.store(after, Ordering::Relaxed),
        _ => {
            let base = BASE_BYTES.load(Ordering::Relaxed);
            assert!(after <= base + 4_096, "grew from {base} to {after} bytes");
        }
    }
});
