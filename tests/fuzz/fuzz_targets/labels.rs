//! A label index. What is asserted stands in `headwater_log::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| headwater_log::fuzzing::labels(input));
