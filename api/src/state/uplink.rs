//! The network below the overlay, as the machine's own services know it.

use serde::{Deserialize, Serialize};
use zbus::Type;

use crate::dict;

words! {
    /// What the machine is connected by.
    UplinkKind {
        /// Wi-Fi.
        Wifi = "wifi",
        /// A cable.
        Ethernet = "ethernet",
        /// A modem.
        Mobile = "mobile",
        /// Something else.
        Other = "other",
    }
}

words! {
    /// How far that leads, as NetworkManager found out.
    Connectivity {
        /// Nowhere.
        None = "none",
        /// To a page that wants a login.
        Portal = "portal",
        /// Not to the internet.
        Limited = "limited",
        /// To the internet.
        Full = "full",
    }
}

dictionary! {
    /// What the machine is connected by.
    Uplink {
        /// Who tells: `NetworkManager`, or `kernel` where that does not run; empty: nothing is known.
        source: String,
        /// Such as `wlan0`; empty: none.
        interface: String,
        /// What it is.
        kind: UplinkKind,
        /// How far it leads.
        connectivity: Connectivity,
        ; optional
        /// Name of the Wi-Fi.
        ssid: String,
        /// Its access point (BSSID).
        access_point: String,
        /// Hz.
        frequency: f64,
        /// Quality of the signal as NetworkManager gives it, 0 to 1.
        quality: f64,
        /// Strength of the signal, dBm; as far as the quality tells, which ends at -40 and at -100.
        signal: f64,
        /// Rate of the radio link, bit/s.
        rate: f64,
    }
}
