//! Configuration file and routes: parsed once to types that cannot be wrong. No I/O beyond reading the file.
