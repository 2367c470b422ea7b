use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};

use rustix::fs::OFlags;
use system_tests::random::Random;

use super::*;
use crate::disk::Survival;

const CACHES: [Cache; 4] = [Cache::Direct, Cache::Off, Cache::WriteThrough, Cache::WriteBack];

/// Runs `body` for each cache; where nothing can be mounted, the test `left_out` says so.
fn with_each_cache(body: impl Fn(Cache, &Path)) {
    if possible().is_err() {
        return;
    }
    for cache in CACHES {
        let folder = tempfile::tempdir().unwrap();
        body(cache, folder.path());
    }
}

#[test]
fn it_is_a_file_system() {
    with_each_cache(|cache, path| {
        let mounted = Mounted::mount(Disk::default(), cache, path).unwrap();
        let inner = path.join("a/b");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("one"), vec![7; 3_000_000]).unwrap();
        assert_eq!(fs::read(inner.join("one")).unwrap(), vec![7; 3_000_000]);
        fs::rename(inner.join("one"), inner.join("two")).unwrap();
        for index in 0..500 {
            fs::write(inner.join(format!("many-{index}")), "x").unwrap();
        }
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 501);
        let file = File::options().read(true).write(true).open(inner.join("two")).unwrap();
        file.set_len(10).unwrap();
        file.write_all_at(b"end", 12).unwrap();
        assert_eq!(
            fs::read(inner.join("two")).unwrap(),
            b"\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\0\0end"
        );
        File::create(inner.join("two")).unwrap();
        assert_eq!(fs::metadata(inner.join("two")).unwrap().len(), 0);
        fs::remove_file(inner.join("two")).unwrap();
        assert!(fs::metadata(inner.join("two")).is_err());
        let socket = std::os::unix::net::UnixListener::bind(path.join("socket")).unwrap();
        std::os::unix::net::UnixStream::connect(path.join("socket")).unwrap();
        drop((file, socket));
        mounted.unmount().unwrap();
    });
}

#[test]
fn direct_writes_work_where_they_are_let() {
    with_each_cache(|cache, path| {
        let mounted = Mounted::mount(Disk::default(), cache, path).unwrap();
        let direct = OFlags::DIRECT.bits() as i32;
        let name = path.join("file");
        File::create(&name).unwrap();
        let opened = File::options().write(true).custom_flags(direct).open(&name);
        assert_eq!(opened.is_ok(), matches!(cache, Cache::Direct | Cache::Off), "{cache:?}");
        drop(opened);
        mounted.unmount().unwrap();
    });
}

#[test]
fn what_was_not_synced_is_gone_after_a_cut_and_what_was_is_there() {
    with_each_cache(|cache, path| {
        let mounted = Mounted::mount(Disk::default(), cache, path).unwrap();
        let file = File::create(path.join("file")).unwrap();
        file.write_all_at(b"synced", 0).unwrap();
        file.sync_data().unwrap();
        File::open(path).unwrap().sync_all().unwrap();
        file.write_all_at(b"LOST", 2).unwrap();
        File::create(path.join("lost")).unwrap().sync_all().unwrap();
        mounted.cut_now();
        mounted.let_go();
        assert!(file.sync_data().is_err(), "{cache:?}: no power");
        drop(file);
        let mut disk = mounted.unmount().unwrap();
        disk.cut(Survival::Nothing, &mut Random::seeded(1));
        let mounted = Mounted::mount(disk, cache, path).unwrap();
        assert_eq!(fs::read(path.join("file")).unwrap(), b"synced", "{cache:?}");
        assert_eq!(fs::read_dir(path).unwrap().count(), 1, "{cache:?}");
        mounted.unmount().unwrap();
    });
}

#[test]
fn the_power_goes_off_at_the_operation_that_was_said() {
    with_each_cache(|cache, path| {
        for last_sync_counts in [false, true] {
            let mounted = Mounted::mount(Disk::default(), cache, path).unwrap();
            let file = File::create(path.join("file")).unwrap();
            File::open(path).unwrap().sync_all().unwrap();
            // The write, then the sync.
            mounted.cut_after(1, last_sync_counts);
            let writer = std::thread::spawn(move || {
                file.write_all_at(b"first", 0).unwrap();
                file.sync_data()
            });
            assert!(mounted.wait_until_off(Duration::from_secs(10)), "{cache:?}");
            mounted.let_go();
            assert!(writer.join().unwrap().is_err(), "{cache:?}: nobody is told");
            let mut disk = mounted.unmount().unwrap();
            disk.cut(Survival::Nothing, &mut Random::seeded(1));
            let (_, number) = disk.paths().remove(0);
            let expected: &[u8] = if last_sync_counts { b"first" } else { b"" };
            assert_eq!(disk.file(number).unwrap().durable(), expected, "{cache:?}");
        }
    });
}
