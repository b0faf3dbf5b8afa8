//! Bodies of the fuzz target for what routers answer: whatever they say, it is read or passed over.

use std::net::Ipv4Addr;

use super::upnp::{soap, ssdp};
use super::{nat_pmp, pcp};

/// PCP, NAT-PMP, SSDP and the router's pages.
pub fn answers(data: &[u8]) {
    if let Some(pcp::Response::Mapped { external, .. }) = pcp::response(data) {
        assert!(external.port() != 0 && !external.ip().is_unspecified());
    }
    if let Some(nat_pmp::Response::Address { external, .. }) = nat_pmp::response(data) {
        assert!(!external.is_unspecified());
    }
    let router = Ipv4Addr::new(192, 168, 1, 1);
    if let Some(page) = ssdp::location(data, router) {
        assert_eq!(*page.server.ip(), router, "nobody else is asked");
        assert!(page.join("/ctl").is_some_and(|page| *page.server.ip() == router));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(service) = soap::service(text)
        && let Some(page) = ssdp::Page::parse("http://192.168.1.1:5000/", router)
    {
        assert!(page.join(&service.control_url).is_none_or(|page| *page.server.ip() == router));
    }
    let _ = (soap::external_address(text), soap::error_code(text));
}
