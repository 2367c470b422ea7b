//! Cases that failed once. Whoever tests the log replays them: they are the rarest that were found.

/// Power cuts: [`crate::crash::replay`].
pub const CUTS: &[&str] = &[
    // A segment given up inside a commit: its gap was not told when the power went before the roll.
    "drop-oldest:11882144485324860567:143:prefix:1",
    // The head of the oldest segment is lost: where it begins was forgotten.
    "packed:9972057452451049523:313:rot-after:6",
    "ring:8031150458810736013:223:rot-after:0",
    // A stream that began in the damaged segment: its first offsets were not missed.
    "topics:12903220023620079802:65:rot-after:7",
    // A log start that was not on disk decided what was not copied: a hole without a name.
    "topics:14048795894192978530:171:prefix:3",
    // What copies hold of a missing segment was named as lost.
    "topics:7713073933360370021:321:rot-after:9",
    // A group of copies without its header was taken for one of records.
    "topics:14048795894192978530:179:rot-after:6",
];

/// Rot: [`crate::rot::replay`].
pub const ROTS: &[&str] = &[
    // The newest segment was cut off behind its header: it looked like a torn roll.
    "ring:15369397077577873387:168:38",
    // A segment is gone and the head of the next one too: the hole had no name, or too wide a one.
    "ring:15369397077577873387:237:53",
    "packed:5893546192035960086:111:42",
    "topics:1244422513151060527:121:51",
    // The group that tells what was dropped is damaged: its word was taken for the whole of it.
    "drop-oldest:3005213998666876213:140:2",
    // The first 512 bytes of a last group in one sector of 4,096.
    "large-sectors:10845542952055591546:324:4",
    // The oldest segment was given up before one of which nothing is left: no log start moved.
    "ring:15369397077577873387:256:35",
    "drop-oldest:3005213998666876213:242:34",
    // The only segment was cut off inside its header: its length was taken for the size of segments.
    "drop-oldest:3005213998666876213:15:15",
    // No checkpoint is left: streams that are not in what is left began at 0.
    "tiny-groups:2196189570802233655:84:4",
    // The newest segment is gone, and copies with it that were made before a segment was given up: they were told as
    // dropped by a lane that drops nothing.
    "topics:14018853732358433097:268:39",
    "topics:9978633934135642913:283:26",
    // There and a gap.
    "topics:1244422513151060527:333:2",
    "topics:12952659932467502658:180:12",
    "topics:13729209184392305221:270:29",
    // A small last group in a sector of 4,096 bytes lost its first 512, and had no trailer.
    "large-sectors:10101642500631703412:15:1",
];

/// Calls that failed: [`crate::iofault::replay`].
pub const FAULTS: &[&str] = &[
    // A free header that could not be written left an older segment before a free one: a hole without a name.
    // A device that read nothing at all for a while: the lane began anew and gave out offsets and segments again.
    "1:550", "1:1125", "1:2277", "1:2423", "1:8036", "1:12788",
];
