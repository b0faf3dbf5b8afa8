//! Finding the router's description by SSDP (UPnP Device Architecture 1.1), asked of the router alone.

use std::net::{Ipv4Addr, SocketAddrV4};

/// Routers listen there.
pub const PORT: u16 = 1900;

/// The kinds of device that are asked for.
pub const DEVICES: [&str; 2] = [
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
];

/// Longest answer that is looked at.
const LONGEST: usize = 2048;

/// Asks a router, which need not wait before it answers.
pub fn search(router: Ipv4Addr, device: &str) -> String {
    format!(
        "M-SEARCH * HTTP/1.1\r\nHOST: {router}:{PORT}\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: {device}\r\n\r\n"
    )
}

/// Where a page of the router is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The router's address and port.
    pub server: SocketAddrV4,
    /// Path and query.
    pub path: String,
}

impl Page {
    /// A URL by plain HTTP that names the router by its address, and nobody else.
    pub fn parse(url: &str, router: Ipv4Addr) -> Option<Self> {
        let uri: hyper::Uri = url.trim().parse().ok()?;
        let host = uri.host()?.parse::<Ipv4Addr>().ok()?;
        if uri.scheme_str() != Some("http") || host != router {
            return None;
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let server = SocketAddrV4::new(router, uri.port_u16().unwrap_or(80));
        Some(Self { server, path: path.to_owned() })
    }

    /// Another page, by a URL that may be relative to this one's server.
    pub fn join(&self, url: &str) -> Option<Self> {
        let url = url.trim();
        if url.contains("://") {
            return Self::parse(url, *self.server.ip());
        }
        let path = if url.starts_with('/') { url.to_owned() } else { format!("/{url}") };
        path.parse::<hyper::Uri>().ok()?;
        Some(Self { server: self.server, path })
    }
}

/// The description's place in an answer from the router.
pub fn location(datagram: &[u8], router: Ipv4Addr) -> Option<Page> {
    let text = std::str::from_utf8(datagram.get(..datagram.len().min(LONGEST))?).ok()?;
    let mut lines = text.split("\r\n");
    let status = lines.next()?;
    if !status.starts_with("HTTP/1.") || status.split(' ').nth(1) != Some("200") {
        return None;
    }
    let headers = lines.take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(':'));
    let (mut found, mut is_gateway) = (None, false);
    for (name, value) in headers {
        if name.eq_ignore_ascii_case("location") {
            found = Page::parse(value, router);
        } else if name.eq_ignore_ascii_case("st") {
            is_gateway = DEVICES.contains(&value.trim());
        }
    }
    found.filter(|_| is_gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

    #[test]
    fn only_the_routers_own_description_is_taken() {
        let answer = |st: &str, location: &str| {
            let text = format!(
                "HTTP/1.1 200 OK\r\nST: {st}\r\nCache-Control: max-age=120\r\nLocation: {location}\r\n\r\n"
            );
            super::location(text.as_bytes(), ROUTER)
        };
        let good = answer(DEVICES[0], "http://192.168.1.1:5000/rootDesc.xml").unwrap();
        assert_eq!((good.server.port(), good.path.as_str()), (5000, "/rootDesc.xml"));
        assert_eq!(good.join("ctl/IPConn").unwrap().path, "/ctl/IPConn");
        assert_eq!(good.join("http://192.168.1.1/x").unwrap().server.port(), 80);
        assert_eq!(good.join("http://192.168.1.2/x"), None);
        for (st, place) in [
            (DEVICES[0], "http://192.168.1.2:5000/rootDesc.xml"),
            (DEVICES[0], "http://router.example/rootDesc.xml"),
            (DEVICES[0], "https://192.168.1.1/rootDesc.xml"),
            (DEVICES[0], "file:///etc/passwd"),
            ("urn:schemas-upnp-org:device:MediaServer:1", "http://192.168.1.1:5000/rootDesc.xml"),
        ] {
            assert_eq!(answer(st, place), None, "{st} {place}");
        }
        for bad in [&b"HTTP/1.1 500 No\r\n\r\n"[..], b"", b"\xff\xfe", b"NOTIFY * HTTP/1.1\r\n\r\n"] {
            assert_eq!(super::location(bad, ROUTER), None);
        }
    }
}
