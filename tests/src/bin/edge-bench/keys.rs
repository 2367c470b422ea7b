//! Keys that fill every partition of a topic: Kafka's default partitioner, murmur2.

/// The partition of a key, as Kafka's clients choose it.
pub(crate) fn partition_of(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7FFF_FFFF) % partitions
}

/// One key for each partition of a topic, in the order of the partitions.
pub(crate) fn one_key_each(partitions: u32) -> Vec<String> {
    let mut keys: Vec<Option<String>> = (0..partitions).map(|_| None).collect();
    let mut left = partitions;
    for number in 0_u64.. {
        if left == 0 {
            break;
        }
        let key = format!("m{number:03}");
        let slot = &mut keys[partition_of(key.as_bytes(), partitions) as usize];
        if slot.is_none() {
            *slot = Some(key);
            left -= 1;
        }
    }
    keys.into_iter().flatten().collect()
}

/// Austin Appleby's MurmurHash2, with Kafka's seed.
fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5BD1_E995;
    let mut hash = 0x9747_B28C ^ bytes.len() as u32;
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        let mut k = word.iter().rev().fold(0, |k, byte| k << 8 | u32::from(*byte));
        k = k.wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0, |k, byte| k << 8 | u32::from(*byte));
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_kafka() {
        // From UtilsTest.java of Apache Kafka.
        assert_eq!(murmur2(b"21") as i32, -973_932_308);
        assert_eq!(murmur2(b"foobar") as i32, -790_332_482);
        assert_eq!(murmur2(b"a-little-bit-long-string") as i32, -985_981_536);
    }

    #[test]
    fn every_partition_gets_its_key() {
        let keys = one_key_each(64);
        assert_eq!(keys.len(), 64);
        assert!((0..64).all(|at| partition_of(keys[at as usize].as_bytes(), 64) == at));
    }
}
