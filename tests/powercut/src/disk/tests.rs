use super::*;

const FILE: u32 = 0o100_644;

fn durable(disk: &Disk, path: &str) -> Option<Vec<u8>> {
    let (_, number) = disk.paths().into_iter().find(|(known, _)| known == path)?;
    Some(disk.file(number).unwrap().durable().to_vec())
}

/// A synced file `a` of three sectors of ones; then all of it overwritten with twos, unsynced, and an unsynced `b`.
fn disk() -> Disk {
    let mut disk = Disk::default();
    let a = disk.create(ROOT, "a", FILE).unwrap();
    disk.write(a, 0, &[1; 3 * SECTOR_BYTES]).unwrap();
    disk.sync(a).unwrap();
    disk.sync(ROOT).unwrap();
    disk.write(a, 0, &[2; 3 * SECTOR_BYTES]).unwrap();
    disk.write(a, 3 * SECTOR_BYTES as u64, &[3; SECTOR_BYTES]).unwrap();
    let b = disk.create(ROOT, "b", FILE).unwrap();
    disk.write(b, 0, b"b").unwrap();
    disk.sync(b).unwrap();
    disk
}

#[test]
fn what_was_synced_survives_every_cut_and_sectors_are_never_split() {
    for seed in 0..400 {
        let mut random = Random::seeded(seed);
        let survival = Survival::any(&mut random);
        let mut disk = disk();
        disk.cut(survival, &mut random);
        let a = durable(&disk, "a").expect("its name was synced");
        assert!(a.len() >= 3 * SECTOR_BYTES, "{survival}");
        if !matches!(survival, Survival::Garbage | Survival::Mixed) {
            for (index, sector) in a.chunks(SECTOR_BYTES).enumerate() {
                let allowed: &[u8] = if index < 3 { &[1, 2] } else { &[0, 3] };
                assert!(allowed.contains(&sector[0]), "{survival}");
                assert!(sector.iter().all(|byte| *byte == sector[0]), "{survival}");
            }
        }
    }
}

#[test]
fn the_rules_differ_in_what_they_keep() {
    let cut = |survival| {
        let mut disk = disk();
        disk.cut(survival, &mut Random::seeded(3));
        disk
    };
    let ones = vec![1; 3 * SECTOR_BYTES];
    let nothing = cut(Survival::Nothing);
    assert_eq!(durable(&nothing, "a"), Some(ones.clone()));
    assert_eq!(durable(&nothing, "b"), None, "its bytes were synced, its name was not");
    let everything = cut(Survival::Everything);
    assert_eq!(durable(&everything, "a").map(|a| a.len()), Some(4 * SECTOR_BYTES));
    assert_eq!(durable(&everything, "b"), Some(b"b".to_vec()));
    let lengths = cut(Survival::Lengths);
    assert_eq!(durable(&lengths, "a"), Some([ones, vec![0; SECTOR_BYTES]].concat()));
    assert_eq!(durable(&cut(Survival::NamesLost), "b"), None);
}

#[test]
fn a_rename_happens_whole_or_not_at_all() {
    for seed in 0..64 {
        let mut disk = Disk::default();
        let a = disk.create(ROOT, "a", FILE).unwrap();
        disk.sync(a).unwrap();
        disk.sync(ROOT).unwrap();
        disk.rename((ROOT, "a"), (ROOT, "b")).unwrap();
        let mut random = Random::seeded(seed);
        disk.cut(Survival::any(&mut random), &mut random);
        let names: Vec<String> = disk.paths().into_iter().map(|(path, _)| path).collect();
        assert!(names == ["a"] || names == ["b"], "{names:?}");
    }
}

#[test]
fn rot_changes_one_used_sector_and_tells_which() {
    let mut disk = disk();
    disk.cut(Survival::Nothing, &mut Random::seeded(0));
    let rotten = disk.rot("a", &mut Random::seeded(5)).unwrap();
    let bytes = durable(&disk, "a").unwrap();
    let spoilt: Vec<usize> = bytes
        .chunks(SECTOR_BYTES)
        .enumerate()
        .filter(|(_, sector)| sector.iter().any(|byte| *byte != 1))
        .map(|(index, _)| index * SECTOR_BYTES)
        .collect();
    assert_eq!(spoilt, [rotten.position as usize]);
    assert_eq!(disk.rot("nothing", &mut Random::seeded(5)), None);
}
