use super::*;

/// A source of topic 0 with five records sent and 0, 1, 2 acknowledged.
fn books() -> Books {
    let mut books = Books::new(false);
    let source = books.add_source(0);
    books.sources[source as usize].sent = 5;
    books.sources[source as usize].acked = vec![0, 1, 2];
    books
}

fn log(records: &[(u64, u64)]) -> BTreeMap<Partition, Vec<Read>> {
    let read = |&(offset, number)| Read { offset, source: 0, number };
    BTreeMap::from([((0, 0), records.iter().map(read).collect())])
}

fn told(start: u64, end: u64, gaps: &[(u64, u64)]) -> Told {
    Told {
        bounds: BTreeMap::from([((0, 0), (start, end))]),
        gaps: gaps.iter().map(|&(from, to)| Gap { partition: (0, 0), from, to }).collect(),
        normal_bytes: (9, 10),
    }
}

const WHOLE: [(u64, u64); 3] = [(0, 0), (1, 1), (2, 2)];

#[test]
fn a_whole_log_with_and_without_what_was_not_acknowledged_is_fine() {
    books().compare(&log(&WHOLE), &told(0, 3, &[]), false).unwrap();
    let more = [(0, 0), (1, 1), (2, 2), (3, 4)];
    books().compare(&log(&more), &told(0, 4, &[]), false).unwrap();
}

#[test]
fn each_broken_promise_is_found() {
    for (what, records, end) in [
        ("missing", &[(0, 0), (1, 2)][..], 2),
        ("twice", &[(0, 0), (1, 1), (2, 1), (3, 2)], 4),
        ("out of order", &[(0, 1), (1, 0), (2, 2)], 3),
        ("a hole", &[(0, 0), (2, 1), (3, 2)], 4),
        ("short of its end", &WHOLE, 4),
    ] {
        let compared = books().compare(&log(records), &told(0, end, &[]), false);
        assert!(compared.is_err(), "{what}");
    }
}

#[test]
fn what_was_read_once_is_there_ever_after_at_its_offset() {
    let mut books = books();
    books.compare(&log(&WHOLE), &told(0, 3, &[]), false).unwrap();
    books.add_read(log(&[(3, 3)]));
    assert!(books.compare(&log(&WHOLE), &told(0, 3, &[]), false).is_err(), "3 was read");
    let other = [(0, 0), (1, 1), (2, 2), (3, 4)];
    assert!(books.compare(&log(&other), &told(0, 4, &[]), false).is_err(), "3 was another");
    let same = [(0, 0), (1, 1), (2, 2), (3, 3)];
    books.compare(&log(&same), &told(0, 4, &[]), false).unwrap();
}

#[test]
fn a_loss_counts_as_named_only_where_a_gap_names_it() {
    let holed = [(0, 0), (2, 2)];
    let counts = books().compare(&log(&holed), &told(0, 3, &[(1, 2)]), false).unwrap();
    assert_eq!(counts.named, 1);
    assert!(books().compare(&log(&holed), &told(0, 3, &[(5, 6)]), false).is_err());
    let mut books = books();
    books.compare(&log(&WHOLE), &told(0, 3, &[]), false).unwrap();
    let counts = books.compare(&log(&holed), &told(0, 3, &[(1, 2)]), false).unwrap();
    assert_eq!(counts.named, 1);
}

#[test]
fn what_a_full_lane_forgets_must_have_been_read_before() {
    let mut books = books();
    let rest = [(1, 1), (2, 2)];
    assert!(books.compare(&log(&rest), &told(1, 3, &[]), true).is_err());
    books.compare(&log(&WHOLE), &told(0, 3, &[]), true).unwrap();
    assert_eq!(books.compare(&log(&rest), &told(1, 3, &[]), true).unwrap().given_up, 1);
    assert!(books.compare(&log(&rest[1..]), &told(2, 3, &[]), false).is_err(), "does not forget");
}

#[test]
fn values_are_recognised_only_as_they_were_sent() {
    for incompressible in [false, true] {
        let mut books = Books::new(incompressible);
        let source = books.add_source(0);
        books.sources[0].sent = 3_000;
        for number in 0..3_000 {
            let value = value(source, number, incompressible);
            assert_eq!(books.recognise(&value).unwrap(), (source, number));
        }
        let mut spoilt = value(source, 7, incompressible);
        *spoilt.last_mut().unwrap() ^= 1;
        assert!(books.recognise(&spoilt).is_err());
        assert!(books.recognise(&value(source, 3_000, incompressible)).is_err(), "not sent yet");
    }
}
