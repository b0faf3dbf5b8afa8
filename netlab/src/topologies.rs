//! Ready-made labs. Each is also a TOML file in `netlab/examples/`, and this reads that file.

use crate::description::Description;
use crate::error::Error;

/// A coordinator on the internet; robots `robot-a` and `robot-b`, each on an isolated Wi-Fi without multicast behind
/// a NAT of its own; `laptop` on an office network behind a third.
pub fn campus() -> Result<Description, Error> {
    Description::from_toml(include_str!("../examples/campus.toml"))
}

/// A coordinator on the internet; robots `robot-a` and `robot-b` on one isolated Wi-Fi without multicast behind one NAT.
pub fn same_wifi() -> Result<Description, Error> {
    Description::from_toml(include_str!("../examples/same-wifi.toml"))
}
