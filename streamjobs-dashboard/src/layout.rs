//! What stands around every page, and the pages that say that there is nothing else to show.

use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use crate::access::Action;
use crate::assets;
use crate::csrf::TOKEN_FIELD;
use crate::fault::Fault;
use crate::format::Foreign;
use crate::state::State;
use crate::visit::Visit;

/// A page: what it is called, where it stands, and what it shows.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) title: String,
    /// The way down to it: texts with their links.
    pub(crate) trail: Vec<(String, String)>,
    /// What changes while somebody follows the page.
    pub(crate) body: Markup,
}

/// The page, whole.
pub(crate) fn page(visit: &Visit, state: &State, view: &View) -> Response {
    Html(document(visit, state, view).into_string()).into_response()
}

/// A page that says why there is nothing else to show.
pub(crate) fn failed(visit: &Visit, state: &State, fault: &Fault) -> Response {
    let title = heading(fault.status).to_owned();
    let body = html! { (fault_box(fault)) };
    let view = View { title, trail: Vec::new(), body };
    (fault.status, page(visit, state, &view)).into_response()
}

/// Why something could not be shown, for a part of a page.
pub(crate) fn fault_box(fault: &Fault) -> Markup {
    html! {
        section.fault role="alert" {
            h2 { (heading(fault.status)) }
            p { (Foreign(&fault.text)) }
            @if fault.status == StatusCode::SERVICE_UNAVAILABLE {
                p.hint { "Nothing is shown rather than zeros. This page tries again by itself." }
            }
        }
    }
}

fn heading(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "There is nothing here",
        StatusCode::FORBIDDEN => "You may not do this",
        StatusCode::CONFLICT => "Refused",
        StatusCode::SERVICE_UNAVAILABLE => "This could not be asked",
        _ => "That makes no sense",
    }
}

/// A form with one button: nothing at all for somebody who may not do it.
pub(crate) fn button(visit: &Visit, action: Action, to: &str, button: &Button<'_>) -> Markup {
    html! {
        @if visit.access.may(action) {
            form.inline method="post" action=(to) data-confirm=[button.confirm] {
                (token(visit))
                @for (name, value) in button.fields { input type="hidden" name=(name) value=(value); }
                button type="submit" class=[button.danger.then_some("danger")] { (button.text) }
            }
        }
    }
}

/// What a form with one button says and sends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Button<'a> {
    pub(crate) text: &'a str,
    pub(crate) fields: &'a [(&'a str, &'a str)],
    /// What is asked before it is sent.
    pub(crate) confirm: Option<&'a str>,
    pub(crate) danger: bool,
}

/// The field that every form of ours needs.
pub(crate) fn token(visit: &Visit) -> Markup {
    html! { input type="hidden" name=(TOKEN_FIELD) value=(visit.token.as_str()); }
}

/// A list that is empty, and what that means.
pub(crate) fn nothing(text: &str) -> Markup {
    html! { p.empty { (text) } }
}

fn document(visit: &Visit, state: &State, view: &View) -> Markup {
    let base = &visit.base;
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (Foreign(&view.title)) " · streamjobs" }
                link rel="stylesheet" href=(assets::link(base, &assets::STYLE));
                link rel="icon" href=(assets::link(base, &assets::ICON));
                script src=(assets::link(base, &assets::MORPH)) defer {}
                script src=(assets::link(base, &assets::SCRIPT)) defer {}
            }
            body data-refresh=(state.refresh.as_millis()) {
                a.skip href="#main" { "Skip to the page" }
                (header(visit, state))
                @if let Some(notice) = &visit.notice {
                    p.notice role="status" { (Foreign(&notice.0)) }
                }
                main #main tabindex="-1" {
                    (trail(view))
                    div #live { (view.body) }
                }
                (footer(visit))
            }
        }
    }
}

fn header(visit: &Visit, state: &State) -> Markup {
    let base = &visit.base;
    html! {
        header.top {
            a.brand href=(base.root()) { "streamjobs" }
            nav aria-label="Pages" {
                a href=(base.root()) data-key="o" { "Overview" }
                @if state.has_archive() {
                    a href=(base.to(&["archive"])) data-key="d" { "Dead letters" }
                }
                a href=(base.to(&["processes"])) data-key="c" { "Processes" }
                a href=(base.to(&["alerts"])) data-key="a" { "Alerts" }
            }
            div.live {
                span #liveness role="status" { "still" }
                button #pause type="button" hidden { "Pause" }
            }
        }
    }
}

fn trail(view: &View) -> Markup {
    html! {
        @if !view.trail.is_empty() {
            nav.trail aria-label="Where this is" {
                @for (text, link) in &view.trail { a href=(link) { (Foreign(text)) } " / " }
                span aria-current="page" { (Foreign(&view.title)) }
            }
        }
    }
}

fn footer(visit: &Visit) -> Markup {
    html! {
        footer {
            p {
                (Foreign(visit.access.who()))
                " · keys: " kbd { "p" } " pause, " kbd { "/" } " filter, " kbd { "o" } " overview, "
                kbd { "c" } " processes, " kbd { "a" } " alerts, " kbd { "d" } " dead letters"
            }
        }
    }
}
