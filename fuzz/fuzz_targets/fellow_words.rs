#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| ria_coordinator::fuzz::fellow_words(data));
