//! Errors of the local API: D-Bus error names, and the exit codes of the command line that they lead to.

use zbus::DBusError;

/// Why a call failed. The text says what to do next.
#[derive(Debug, DBusError)]
#[zbus(prefix = "org.ria.Overlay1.Error")]
pub enum ApiError {
    /// The bus itself failed.
    #[zbus(error)]
    Bus(zbus::Error),
    /// Something went wrong that has no name of its own.
    Failed(String),
    /// An argument makes no sense.
    InvalidArgument(String),
    /// The text is no join key.
    InvalidJoinKey(String),
    /// This machine is in no network.
    NotJoined(String),
    /// It is in no network of that name.
    NoSuchNetwork(String),
    /// The network has no member of that name, id or address.
    NoSuchPeer(String),
    /// The coordinator said no. The text begins with the stable name of its reason and `: `.
    Refused(String),
    /// The coordinator can't be reached or is not the one that the join key names.
    Unreachable(String),
    /// It took too long.
    TimedOut(String),
    /// The caller may not do this.
    NotPermitted(String),
}

impl ApiError {
    /// The exit code of the command line (design, "Agent CLI").
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Bus(_)
            | Self::Failed(_)
            | Self::NoSuchNetwork(_)
            | Self::NoSuchPeer(_)
            | Self::Unreachable(_) => 1,
            Self::InvalidArgument(_) | Self::InvalidJoinKey(_) => 2,
            Self::NotJoined(_) => 4,
            Self::TimedOut(_) => 5,
            Self::Refused(_) => 6,
            Self::NotPermitted(_) => 7,
        }
    }

    /// The text for people.
    pub fn text(&self) -> String {
        match self {
            Self::Bus(error) => error.to_string(),
            Self::Failed(t)
            | Self::InvalidArgument(t)
            | Self::InvalidJoinKey(t)
            | Self::NotJoined(t)
            | Self::NoSuchNetwork(t)
            | Self::NoSuchPeer(t)
            | Self::Refused(t)
            | Self::Unreachable(t)
            | Self::TimedOut(t)
            | Self::NotPermitted(t) => t.clone(),
        }
    }
}
