//! IP prefixes on the wire: address bytes without host bits, and a length.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, PrefixLenError};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use serde::{Deserialize, Serialize};

/// An IP prefix such as `10.213.0.0/16`, host bits always zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "IpNet", into = "IpNet")]
pub struct Prefix(IpNet);

impl Prefix {
    /// A prefix; host bits of `address` are dropped.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, PrefixLenError> {
        Ok(IpNet::new(address, length)?.into())
    }

    /// The prefix that holds one address.
    pub fn host(address: IpAddr) -> Self {
        Self(address.into())
    }

    /// First address.
    pub fn address(&self) -> IpAddr {
        self.0.addr()
    }

    /// Prefix length in bits.
    pub fn length(&self) -> u8 {
        self.0.prefix_len()
    }

    /// Whether `address` lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// Whether the two share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.contains(&other.0.network()) || other.0.contains(&self.0.network())
    }

    /// Whether each address of `other` is one of its own.
    pub fn covers(&self, other: &Self) -> bool {
        self.0.contains(&other.0)
    }

    /// As the library's type, for tables and iteration.
    pub fn to_net(self) -> IpNet {
        self.0
    }
}

impl From<IpNet> for Prefix {
    fn from(net: IpNet) -> Self {
        Self(net.trunc())
    }
}

impl From<Prefix> for IpNet {
    fn from(prefix: Prefix) -> Self {
        prefix.0
    }
}

impl FromStr for Prefix {
    type Err = ipnet::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<IpNet>().map(Self::from)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Wire form: a byte string of 5 (IPv4) or 17 (IPv6) bytes, the length last.
impl<C> Encode<C> for Prefix {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        let mut bytes = [0; 17];
        let used = match self.address() {
            IpAddr::V4(a) => {
                bytes[..4].copy_from_slice(&a.octets());
                4
            }
            IpAddr::V6(a) => {
                bytes[..16].copy_from_slice(&a.octets());
                16
            }
        };
        bytes[used] = self.length();
        e.bytes(&bytes[..=used])?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Prefix {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let wrong = || decode::Error::message("invalid prefix");
        let (length, address) = d.bytes()?.split_last().ok_or_else(wrong)?;
        let address = match address.len() {
            4 => IpAddr::from(<[u8; 4]>::try_from(address).map_err(|_| wrong())?),
            16 => IpAddr::from(<[u8; 16]>::try_from(address).map_err(|_| wrong())?),
            _ => return Err(wrong()),
        };
        let prefix = Self::new(address, *length).map_err(|_| wrong())?;
        // Host bits would give one prefix two byte forms, and a signature covers bytes.
        if prefix.address() == address { Ok(prefix) } else { Err(wrong()) }
    }
}
