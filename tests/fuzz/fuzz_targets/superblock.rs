//! A superblock, with and without a CRC that fits. What is asserted stands in `headwater_log::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| headwater_log::fuzzing::superblock(input));
