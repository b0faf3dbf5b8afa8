#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| ria::fuzz::router_answers(data));
