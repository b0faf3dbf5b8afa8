//! From which level on a logger lets lines through: what `--log-level` says of it or of all, else INFO. r2r has no call for it.

use std::ffi::CString;

/// The lowest level that passes, in the numbers of `rcl_interfaces/Log`; `None` when rcutils does not know.
///
/// To be asked before a second thread logs through rcl: rcutils keeps what it finds in a table without a lock.
#[allow(unsafe_code, reason = "rcutils is a C library")]
pub fn of(logger: &str) -> Option<u8> {
    let logger = CString::new(logger).ok()?;
    // SAFETY: `logger` ends with a zero byte and lives through the call, which keeps a copy of it at most.
    let level = unsafe { r2r_rcl::rcutils_logging_get_logger_effective_level(logger.as_ptr()) };
    u8::try_from(level).ok()
}
