//! Why a command failed, and the exit code that says so (design, "Agent CLI").

use std::io;

use ria_api::client::ConnectError;
use ria_api::error::ApiError;

/// Exit codes. 0 is success.
pub const FAILED: u8 = 1;
pub const USAGE: u8 = 2;
pub const NO_DAEMON: u8 = 3;
pub const NOT_JOINED: u8 = 4;
pub const TIMED_OUT: u8 = 5;
pub const REFUSED: u8 = 6;
pub const NOT_PERMITTED: u8 = 7;

/// Ends a command.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// Says why, on stderr.
    Told { code: u8, text: String },
    /// What there is to say has been said.
    Silent { code: u8 },
}

impl Failure {
    pub fn new(code: u8, text: impl Into<String>) -> Self {
        Self::Told { code, text: text.into() }
    }

    pub fn code(&self) -> u8 {
        match self {
            Self::Told { code, .. } | Self::Silent { code } => *code,
        }
    }

    /// The exit code as a word, for JSON.
    pub fn word(&self) -> &'static str {
        match self.code() {
            USAGE => "usage",
            NO_DAEMON => "no_daemon",
            NOT_JOINED => "not_joined",
            TIMED_OUT => "timed_out",
            REFUSED => "refused",
            NOT_PERMITTED => "not_permitted",
            _ => "failed",
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        if let ApiError::Bus(zbus::Error::InputOutput(_)) = error {
            return Self::new(
                NO_DAEMON,
                "lost the connection to the agent; see whether it still runs (systemctl status ria, journalctl -u ria)",
            );
        }
        Self::new(error.exit_code(), error.text())
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let code = match error {
            ConnectError::NoDaemon { .. } | ConnectError::Silent(_) => NO_DAEMON,
            ConnectError::Denied(_) => NOT_PERMITTED,
            ConnectError::Failed { .. } => FAILED,
        };
        Self::new(code, error.to_string())
    }
}

impl From<zbus::Error> for Failure {
    fn from(error: zbus::Error) -> Self {
        ApiError::from(error).into()
    }
}

/// Writing the output failed.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            // The reader, such as `head`, has what it wants.
            return Self::Silent { code: 0 };
        }
        Self::new(FAILED, format!("can't write the output: {error}"))
    }
}
