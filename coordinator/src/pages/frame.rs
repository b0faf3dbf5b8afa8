//! What all pages have around them, who sees them, and what they post.

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, FromRequest, FromRequestParts, OptionalFromRequestParts, Request};
use axum::http::header::{LOCATION, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{Html, IntoResponse, Response};

use crate::admin::api::{Problem, ProblemCode};
use crate::admin::client::escaped;
use crate::people::secret;
use crate::rest::caller::{cookie, is_cross_site, session};
use crate::rest::gate::{Gate, Who};
use crate::state::people::Role;

/// What binds a form to the browser that it was shown in, before there is a session.
pub(super) const FORM_COOKIE: &str = "__Host-ria-form";

/// What somebody may do somewhere: what they are not offered, they are refused all the same.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Can {
    pub operate: bool,
    pub admin: bool,
    pub owner: bool,
}

impl Can {
    fn of(who: &Who) -> Self {
        let roles = &who.user.roles;
        let highest = roles.networks.values().copied().chain(roles.everywhere).max();
        let has = |role| highest.is_some_and(|highest| highest >= role);
        let owner = roles.everywhere == Some(Role::Owner);
        Self { operate: has(Role::Operator), admin: has(Role::Admin), owner }
    }
}

/// A place in the navigation.
pub(super) struct Item {
    pub path: &'static str,
    pub name: &'static str,
    pub current: bool,
}

/// What is around a page.
#[derive(Debug, Clone, Default)]
pub(super) struct Frame {
    pub title: String,
    pub section: &'static str,
    /// Empty for nobody.
    pub user: String,
    pub csrf: String,
    pub notice: &'static str,
    /// Whether it follows what happens.
    pub live: bool,
    pub can: Can,
}

impl Frame {
    /// For nobody in particular.
    pub fn anonymous(title: &str, csrf: String) -> Self {
        Self { title: title.to_owned(), csrf, ..Self::default() }
    }

    pub fn items(&self) -> Vec<Item> {
        let all: [(&str, &str, &str, bool); 10] = [
            ("/", "Overview", "overview", true),
            ("/nodes", "Nodes", "nodes", true),
            ("/topology", "Topology", "topology", true),
            ("/keys", "Keys", "keys", true),
            ("/networks", "Networks", "networks", true),
            ("/policy", "Policy", "policy", true),
            ("/relays", "Relays", "relays", true),
            ("/people", "People", "people", self.can.owner),
            ("/audit", "Audit", "audit", self.can.admin),
            ("/settings", "Settings", "settings", true),
        ];
        let shown = all.into_iter().filter(|(_, _, _, shown)| *shown);
        shown.map(|(path, name, section, _)| Item { path, name, current: section == self.section }).collect()
    }

    pub fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }
}

#[derive(Template)]
#[template(path = "message.html")]
struct Message<'a> {
    frame: Frame,
    text: &'a str,
    back: &'a str,
}

/// A page, written out.
pub(super) fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page can't be written out");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Somewhere else from here, by GET.
pub(super) fn see_other(path: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let place = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/"));
    response.headers_mut().insert(LOCATION, place);
    response
}

/// Puts a cookie into an answer.
pub(super) fn set_cookie(response: &mut Response, name: &str, value: &str, seconds: u64) {
    let text = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}");
    if let Ok(value) = HeaderValue::from_str(&text) {
        response.headers_mut().append(SET_COOKIE, value);
    }
}

/// Somebody who is logged in and looks at a page.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    pub who: Who,
    pub csrf: String,
    notice: &'static str,
}

/// What is said after something was done; the address says only which.
const NOTICES: [(&str, &str); 19] = [
    ("renamed", "It has the new name."),
    ("tagged", "The tags are set."),
    ("disabled", "It is kept out now."),
    ("enabled", "It may take part again."),
    ("removed", "It is removed."),
    ("approved", "It is a member now."),
    ("rejected", "It is not let in."),
    ("route-approved", "Members reach the network now."),
    ("route-withdrawn", "Nobody reaches the network any more."),
    ("revoked", "Nobody joins by this key any more."),
    ("network", "The network is there."),
    ("roles", "The role is set."),
    ("login", "Your login is changed. All your other sessions have ended."),
    ("person-enabled", "They may log in again."),
    ("token-removed", "The token works no more."),
    ("url", "Nodes are told of the change."),
    ("policy", "The policy is in force; nodes are told now."),
    ("gone", "They are forgotten."),
    ("linked", "You log in by the provider from now on, too."),
];

impl Visitor {
    pub fn frame(&self, title: &str, section: &'static str) -> Frame {
        Frame {
            title: title.to_owned(),
            section,
            user: self.who.user.name.to_string(),
            csrf: self.csrf.clone(),
            notice: self.notice,
            live: false,
            can: Can::of(&self.who),
        }
    }

    pub fn live_frame(&self, title: &str, section: &'static str) -> Frame {
        Frame { live: true, ..self.frame(title, section) }
    }

    /// What went wrong, as a page.
    pub fn problem(&self, problem: &Problem, back: &str) -> Response {
        let (status, title) = match problem.code {
            ProblemCode::BadRequest => (StatusCode::BAD_REQUEST, "That makes no sense"),
            ProblemCode::NotPermitted => (StatusCode::FORBIDDEN, "You may not do that"),
            ProblemCode::NotFound => (StatusCode::NOT_FOUND, "There is no such thing"),
            ProblemCode::Conflict | ProblemCode::NotReady => (StatusCode::CONFLICT, "That can't be done now"),
            ProblemCode::Changed => (StatusCode::PRECONDITION_FAILED, "Somebody else was quicker"),
            ProblemCode::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "The coordinator can't do that now")
            }
        };
        page(status, &Message { frame: self.frame(title, ""), text: &problem.message, back })
    }
}

/// A message for somebody who is not logged in.
pub(super) fn plain_message(status: StatusCode, title: &str, text: &str) -> Response {
    page(status, &Message { frame: Frame::anonymous(title, String::new()), text, back: "/" })
}

async fn visitor(gate: &Gate, headers: &HeaderMap, query: &str) -> Option<Visitor> {
    let (who, session) = session(gate, headers).await?;
    let done = query.split('&').find_map(|pair| pair.strip_prefix("done="));
    let notice = NOTICES.iter().find(|(name, _)| Some(*name) == done).map_or("", |(_, text)| *text);
    Some(Visitor { who, csrf: session.csrf, notice })
}

impl FromRequestParts<Arc<Gate>> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, gate: &Arc<Gate>) -> Result<Self, Response> {
        let query = parts.uri.query().unwrap_or_default();
        visitor(gate, &parts.headers, query).await.ok_or_else(|| {
            let here = parts.uri.path_and_query().map_or("/", |path| path.as_str());
            let back = if parts.method == Method::GET && here != "/" { here } else { "" };
            if back.is_empty() {
                see_other("/login")
            } else {
                see_other(&format!("/login?next={}", escaped(back)))
            }
        })
    }
}

impl OptionalFromRequestParts<Arc<Gate>> for Visitor {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        gate: &Arc<Gate>,
    ) -> Result<Option<Self>, std::convert::Infallible> {
        Ok(visitor(gate, &parts.headers, "").await)
    }
}

/// The fields of a form.
pub(super) type Fields = BTreeMap<String, String>;

/// A field, without blanks around it; empty when it is missing.
pub(super) fn field<'f>(fields: &'f Fields, name: &str) -> &'f str {
    fields.get(name).map_or("", |value| value.trim())
}

/// A form that somebody who is logged in has sent from a page of theirs.
pub(super) struct Posted {
    pub visitor: Visitor,
    pub fields: Fields,
}

async fn read_form(request: Request) -> Result<Fields, Response> {
    let form: Result<Form<Fields>, FormRejection> = Form::from_request(request, &()).await;
    form.map(|Form(fields)| fields).map_err(|error| {
        let text = format!("The form can't be read: {}", error.body_text());
        plain_message(StatusCode::BAD_REQUEST, "That makes no sense", &text)
    })
}

fn forged() -> Response {
    let text =
        "This form was not sent from a page of yours, or is too old. Load the page anew and try again.";
    plain_message(StatusCode::FORBIDDEN, "Not sent from here", text)
}

impl FromRequest<Arc<Gate>> for Posted {
    type Rejection = Response;

    async fn from_request(request: Request, gate: &Arc<Gate>) -> Result<Self, Response> {
        if is_cross_site(request.headers()) {
            return Err(forged());
        }
        let headers = request.headers().clone();
        let visitor = visitor(gate, &headers, "").await.ok_or_else(|| see_other("/login"))?;
        let fields = read_form(request).await?;
        if !secret::same(field(&fields, "csrf").as_bytes(), visitor.csrf.as_bytes()) {
            return Err(forged());
        }
        Ok(Self { visitor, fields })
    }
}

/// A form of somebody who is not logged in, sent from the browser that it was shown in.
pub(super) struct Anonymous {
    pub fields: Fields,
    /// For the same form, shown again.
    pub csrf: String,
}

impl FromRequest<Arc<Gate>> for Anonymous {
    type Rejection = Response;

    async fn from_request(request: Request, gate: &Arc<Gate>) -> Result<Self, Response> {
        if is_cross_site(request.headers()) {
            return Err(forged());
        }
        let bound = cookie(request.headers(), FORM_COOKIE).map(|cookie| form_token(gate, cookie));
        let fields = read_form(request).await?;
        match bound {
            Some(csrf) if secret::same(field(&fields, "csrf").as_bytes(), csrf.as_bytes()) => {
                Ok(Self { fields, csrf })
            }
            Some(_) | None => Err(forged()),
        }
    }
}

/// What a form has to carry that is shown to a browser with this cookie.
pub(super) fn form_token(gate: &Gate, cookie: &str) -> String {
    let key = &gate.admin.services.logins.forms_key;
    secret::base32(&secret::derived(key, "form", cookie.as_bytes()))
}
