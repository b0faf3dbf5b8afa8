//! The constants of the messages in the fields' own type: r2r makes a Rust enum of each.

macro_rules! constants {
    ($($(#[$doc:meta])* $module:ident = $message:path { $($name:ident)+ })+) => {
        $($(#[$doc])* pub mod $module {
            $(#[allow(dead_code, reason = "a table is easier to check when it is whole")]
            pub const $name: u8 = <$message>::$name as u8;)+
        })+
    };
}

constants! {
    /// `ria_msgs/CallResult`.
    calls = r2r::ria_msgs::msg::CallResult {
        DONE FAILED INVALID NO_AGENT NOT_JOINED TIMED_OUT REFUSED NOT_PERMITTED
    }
    /// `ria_msgs/Condition`; the severities of `ria_msgs/Event` are the same.
    conditions = r2r::ria_msgs::msg::Condition {
        SEVERITY_UNKNOWN SEVERITY_INFO SEVERITY_WARNING SEVERITY_ERROR
    }
    /// `ria_msgs/Event`.
    events = r2r::ria_msgs::msg::Event {
        KIND_UNKNOWN KIND_PEER_ADDED KIND_PEER_REMOVED KIND_LINK_STATE KIND_PATH KIND_COORDINATOR KIND_NETWORK
        KIND_MAP KIND_AGENT KIND_UPLINK
        UPLINK_UNKNOWN UPLINK_UP UPLINK_DOWN
    }
    /// `ria_msgs/NetworkReport`.
    reports = r2r::ria_msgs::msg::NetworkReport {
        NAT_UNKNOWN NAT_NONE NAT_ENDPOINT_INDEPENDENT NAT_ENDPOINT_DEPENDENT
        FILTERING_UNKNOWN FILTERING_NONE FILTERING_ENDPOINT_INDEPENDENT FILTERING_ADDRESS_DEPENDENT
        FILTERING_ADDRESS_AND_PORT_DEPENDENT
        ANSWER_UNKNOWN ANSWER_NO ANSWER_YES
    }
    /// `ria_msgs/Peer`.
    peers = r2r::ria_msgs::msg::Peer {
        KIND_UNKNOWN KIND_NODE KIND_STATIC KIND_GATEWAY
        LINK_STATE_UNKNOWN LINK_STATE_IDLE LINK_STATE_CONNECTING LINK_STATE_UP LINK_STATE_DEGRADED LINK_STATE_LOST
        LINK_STATE_DENIED
        PATH_UNKNOWN PATH_NONE PATH_DIRECT PATH_RELAY_UDP PATH_RELAY_TLS
    }
    /// `ria_msgs/Status`.
    statuses = r2r::ria_msgs::msg::Status {
        STATE_UNKNOWN STATE_NO_AGENT STATE_NOT_JOINED STATE_JOINING STATE_UP STATE_DISABLED STATE_REFUSED STATE_FAILED
        STATE_WAITING
        COORDINATOR_UNKNOWN COORDINATOR_CONNECTING COORDINATOR_CONNECTED COORDINATOR_UNREACHABLE COORDINATOR_REFUSED
    }
    /// `rcl_interfaces/ParameterType`, as far as parameters here have that type.
    types = r2r::rcl_interfaces::msg::ParameterType {
        PARAMETER_NOT_SET PARAMETER_BOOL PARAMETER_INTEGER PARAMETER_DOUBLE PARAMETER_STRING
    }
    /// `diagnostic_msgs/DiagnosticStatus`.
    levels = r2r::diagnostic_msgs::msg::DiagnosticStatus { OK WARN ERROR }
}
