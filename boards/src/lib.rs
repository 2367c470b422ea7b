//! Hardware profiles as data, and the detection of the running board.
