//! The router's description and the calls to it, in XML. Built and read here; moved by [`super`].

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use roxmltree::{Document, Node, ParsingOptions};

/// The services that map ports, best first.
const SERVICES: [&str; 4] = [
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:2",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];

/// Elements that a page may have.
const MOST_NODES: u32 = 20_000;

/// A service that maps ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its type, which is named in each call.
    pub kind: &'static str,
    /// Where it is called.
    pub control_url: String,
}

/// A call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// What is the outer address?
    ExternalAddress,
    /// Map a port.
    Add {
        /// Outer port.
        external: u16,
        /// Own port.
        internal: u16,
        /// Own address.
        client: Ipv4Addr,
        /// For so many seconds; 0 for ever.
        lease: u32,
    },
    /// Give an outer port back.
    Delete {
        /// Which.
        external: u16,
    },
}

impl Call {
    const fn action(self) -> &'static str {
        match self {
            Self::ExternalAddress => "GetExternalIPAddress",
            Self::Add { .. } => "AddPortMapping",
            Self::Delete { .. } => "DeletePortMapping",
        }
    }

    /// The header that names the action.
    pub fn soap_action(self, service: &Service) -> String {
        format!("\"{}#{}\"", service.kind, self.action())
    }

    /// The body. Nothing in it needs quoting.
    pub fn body(self, service: &Service) -> String {
        let mut arguments = String::new();
        let mut add = |name: &str, value: &dyn std::fmt::Display| {
            // Writing into a string does not fail.
            let _ = write!(arguments, "<{name}>{value}</{name}>");
        };
        match self {
            Self::ExternalAddress => {}
            Self::Add { external, internal, client, lease } => {
                add("NewRemoteHost", &"");
                add("NewExternalPort", &external);
                add("NewProtocol", &"UDP");
                add("NewInternalPort", &internal);
                add("NewInternalClient", &client);
                add("NewEnabled", &1);
                add("NewPortMappingDescription", &"Ria");
                add("NewLeaseDuration", &lease);
            }
            Self::Delete { external } => {
                add("NewRemoteHost", &"");
                add("NewExternalPort", &external);
                add("NewProtocol", &"UDP");
            }
        }
        let (kind, action) = (service.kind, self.action());
        format!(
            "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body><u:{action} xmlns:u=\"{kind}\">\
             {arguments}</u:{action}></s:Body></s:Envelope>\r\n"
        )
    }
}

/// Parses a page: without a document type, so without entities that grow.
fn parse(text: &str) -> Option<Document<'_>> {
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MOST_NODES, ..ParsingOptions::default() };
    Document::parse_with_options(text, options).ok()
}

fn text_of<'a>(node: Node<'a, 'a>, name: &str) -> Option<&'a str> {
    node.children().find(|child| child.has_tag_name_of(name))?.text().map(str::trim)
}

/// Comparing names without their namespaces: routers get those wrong.
trait Named {
    fn has_tag_name_of(&self, name: &str) -> bool;
}

impl Named for Node<'_, '_> {
    fn has_tag_name_of(&self, name: &str) -> bool {
        self.is_element() && self.tag_name().name() == name
    }
}

/// The best service of a description.
pub fn service(description: &str) -> Option<Service> {
    let document = parse(description)?;
    let services: Vec<(&str, &str)> = document
        .descendants()
        .filter(|node| node.has_tag_name_of("service"))
        .filter_map(|node| Some((text_of(node, "serviceType")?, text_of(node, "controlURL")?)))
        .collect();
    SERVICES.iter().find_map(|kind| {
        let (_, url) = services.iter().find(|(known, _)| known == kind)?;
        Some(Service { kind, control_url: (*url).to_owned() })
    })
}

/// The outer address in an answer.
pub fn external_address(answer: &str) -> Option<Ipv4Addr> {
    let document = parse(answer)?;
    let node = document.descendants().find(|node| node.has_tag_name_of("NewExternalIPAddress"))?;
    node.text()?.trim().parse().ok().filter(|ip: &Ipv4Addr| !ip.is_unspecified())
}

/// The code of an error.
pub fn error_code(answer: &str) -> Option<u16> {
    let document = parse(answer)?;
    document.descendants().find(|node| node.has_tag_name_of("errorCode"))?.text()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESCRIPTION: &str = r#"<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><device>
<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType>
<serviceList><service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType>
<controlURL>/ctl/L3F</controlURL></service></serviceList>
<deviceList><device><deviceList><device><serviceList><service>
<serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>
<controlURL> /ctl/IPConn </controlURL></service></serviceList></device></deviceList></device></deviceList>
</device></root>"#;

    #[test]
    fn the_service_that_maps_ports_is_found_at_any_depth() {
        let service = service(DESCRIPTION).unwrap();
        assert_eq!((service.kind, service.control_url.as_str()), (SERVICES[1], "/ctl/IPConn"));
        assert_eq!(super::service("<root/>"), None);
        assert_eq!(super::service("<root>"), None);
        let bomb = "<!DOCTYPE r [<!ENTITY a \"aaaa\">]><r>&a;</r>";
        assert_eq!(super::service(bomb), None, "no document types");
    }

    #[test]
    fn calls_name_their_action_and_answers_are_read() {
        let service = service(DESCRIPTION).unwrap();
        let add = Call::Add {
            external: 50000,
            internal: 41820,
            client: "192.168.1.10".parse().unwrap(),
            lease: 3600,
        };
        assert_eq!(add.soap_action(&service), format!("\"{}#AddPortMapping\"", service.kind));
        let body = add.body(&service);
        assert!(parse(&body).is_some(), "{body}");
        assert!(body.contains("<NewInternalClient>192.168.1.10</NewInternalClient>"));
        let answer = "<s:Envelope xmlns:s='x'><s:Body><u:R xmlns:u='y'><NewExternalIPAddress>203.0.113.9\
                      </NewExternalIPAddress></u:R></s:Body></s:Envelope>";
        assert_eq!(external_address(answer), Some("203.0.113.9".parse().unwrap()));
        let error = "<e><detail><UPnPError><errorCode>718</errorCode></UPnPError></detail></e>";
        assert_eq!((error_code(error), external_address(error)), (Some(718), None));
        assert_eq!(external_address("<a><NewExternalIPAddress>0.0.0.0</NewExternalIPAddress></a>"), None);
    }
}
