//! How calls went, as messages: the agent's errors with their codes, names and texts.

use r2r::ria_msgs::msg::CallResult;
use ria_api::error::ApiError;

use crate::constants::calls;

/// It went well.
pub fn done() -> CallResult {
    CallResult { success: true, code: calls::DONE, error: String::new(), message: String::new() }
}

/// It did not.
pub fn failed(code: u8, error: &str, message: impl Into<String>) -> CallResult {
    CallResult { success: false, code, error: error.into(), message: message.into() }
}

/// An argument makes no sense.
pub fn invalid(message: impl Into<String>) -> CallResult {
    failed(calls::INVALID, "InvalidArgument", message)
}

/// No agent answers on this machine.
pub fn no_agent(message: impl Into<String>) -> CallResult {
    failed(calls::NO_AGENT, "NoAgent", message)
}

/// The agent said no.
pub fn of_error(error: &ApiError) -> CallResult {
    let name = match error {
        // The connection broke during the call, or the agent is too old or new to understand it.
        ApiError::Bus(zbus::Error::InputOutput(_)) => {
            return no_agent("the Ria agent went away during the call; try again");
        }
        ApiError::Bus(_) | ApiError::Failed(_) => "Failed",
        ApiError::InvalidArgument(_) => "InvalidArgument",
        ApiError::InvalidJoinKey(_) => "InvalidJoinKey",
        ApiError::NotJoined(_) => "NotJoined",
        ApiError::NoSuchNetwork(_) => "NoSuchNetwork",
        ApiError::NoSuchPeer(_) => "NoSuchPeer",
        ApiError::Refused(_) => "Refused",
        ApiError::Unreachable(_) => "Unreachable",
        ApiError::TimedOut(_) => "TimedOut",
        ApiError::NotPermitted(_) => "NotPermitted",
    };
    failed(error.exit_code(), name, error.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_command_line() {
        for (error, code) in [
            (ApiError::NoSuchPeer("x".into()), calls::FAILED),
            (ApiError::InvalidArgument("x".into()), calls::INVALID),
            (ApiError::NotJoined("x".into()), calls::NOT_JOINED),
            (ApiError::TimedOut("x".into()), calls::TIMED_OUT),
            (ApiError::Refused("x".into()), calls::REFUSED),
            (ApiError::NotPermitted("x".into()), calls::NOT_PERMITTED),
        ] {
            let result = of_error(&error);
            assert_eq!(result.code, code, "{error:?}");
            assert!(!result.success && !result.error.is_empty());
            assert_eq!(result.message, "x");
        }
    }

    #[test]
    fn a_broken_connection_is_a_missing_agent() {
        let broken = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let result = of_error(&ApiError::Bus(zbus::Error::InputOutput(std::sync::Arc::new(broken))));
        assert_eq!(result.code, calls::NO_AGENT);
    }
}
