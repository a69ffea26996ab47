//! See the library's module of that name.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: raftlog_fuzz::seeds::write_where_asked("stream"),
    |data: &[u8]| raftlog_fuzz::stream::stream(data)
);
