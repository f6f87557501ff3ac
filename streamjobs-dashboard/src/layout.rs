//! The frame around every page, error pages, and parts that pages share.

use std::fmt::Display;

use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use crate::access::Action;
use crate::assets;
use crate::csrf::TOKEN_FIELD;
use crate::fault::Fault;
use crate::format::{self, Untrusted};
use crate::request::RequestContext;

/// A page: its title, its breadcrumbs and its body.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) title: String,
    /// The breadcrumbs: texts with their links.
    pub(crate) trail: Vec<(String, String)>,
    /// The part that live updates replace.
    pub(crate) body: Markup,
}

/// The whole page.
pub(crate) fn page(ctx: &RequestContext, view: &View) -> Response {
    Html(document(ctx, view).into_string()).into_response()
}

/// A page that shows an error and nothing else.
pub(crate) fn error_page(ctx: &RequestContext, fault: &Fault) -> Response {
    let title = fault.heading.to_owned();
    let body = html! {
        h1 { (fault.heading) }
        section.fault role="alert" data-error { (fault_text(fault)) }
    };
    let view = View { title, trail: Vec::new(), body };
    (fault.status, page(ctx, &view)).into_response()
}

/// An error as a part of a page.
pub(crate) fn fault_box(fault: &Fault) -> Markup {
    html! {
        section.fault role="alert" {
            h2 { (fault.heading) }
            (fault_text(fault))
        }
    }
}

fn fault_text(fault: &Fault) -> Markup {
    html! {
        p { (Untrusted(&fault.text)) }
        @if fault.status == StatusCode::SERVICE_UNAVAILABLE {
            p.hint { "No values are shown, because they would be wrong. The page retries automatically." }
        }
    }
}

/// A form with one button. Empty if the user may not do the action.
pub(crate) fn button(
    ctx: &RequestContext,
    action: Action,
    to: &str,
    button: &Button<'_>,
) -> Markup {
    html! {
        @if ctx.access.may(action) {
            form.inline method="post" action=(to) data-confirm=[button.confirm] {
                (token(ctx))
                @for (name, value) in button.fields { input type="hidden" name=(name) value=(value); }
                button type="submit" class=[button.danger.then_some("danger")] { (button.text) }
            }
        }
    }
}

/// The text and the fields of a form with one button.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Button<'a> {
    pub(crate) text: &'a str,
    pub(crate) fields: &'a [(&'a str, &'a str)],
    /// The question of a confirmation dialog.
    pub(crate) confirm: Option<&'a str>,
    pub(crate) danger: bool,
}

/// The hidden field with the token, which every form needs.
pub(crate) fn token(ctx: &RequestContext) -> Markup {
    html! { input type="hidden" name=(TOKEN_FIELD) value=(ctx.token.as_str()); }
}

/// The checkbox that selects a row for the buttons of its form. `what` is the kind of the row.
pub(crate) fn select(id: impl Display, what: &str) -> Markup {
    html! {
        label.check { input type="checkbox" name="id" value=(id) aria-label={ (what) (id) }; }
    }
}

/// The checkbox that selects all rows of a page. It is not shown without JavaScript.
pub(crate) fn select_all(label: &str) -> Markup {
    html! {
        label.check.needs-script { input type="checkbox" data-all="id" aria-label=(label); }
    }
}

/// The text that is shown instead of an empty list.
pub(crate) fn empty(text: &str) -> Markup {
    html! { p.empty { (text) } }
}

fn document(ctx: &RequestContext, view: &View) -> Markup {
    let base = &ctx.base;
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (Untrusted(&view.title)) " · streamjobs" }
                link rel="stylesheet" href=(assets::link(base, &assets::STYLE));
                link rel="icon" href=(assets::link(base, &assets::ICON));
                script src=(assets::link(base, &assets::MORPH)) defer {}
                script src=(assets::link(base, &assets::SCRIPT)) defer {}
            }
            body data-refresh=(ctx.state.refresh.as_millis()) data-now=(format::now()) {
                a.skip href="#main" { "Skip to content" }
                (header(ctx))
                // The text that a screen reader is told about updates. Otherwise it would read whole tables again and
                // again.
                p.hidden #changes aria-live="polite" {}
                @if let Some(notice) = &ctx.notice {
                    p.notice role="status" { (Untrusted(notice)) }
                }
                main #main tabindex="-1" {
                    (trail(view))
                    div #live { (view.body) }
                }
                (footer(ctx))
            }
        }
    }
}

fn header(ctx: &RequestContext) -> Markup {
    let base = &ctx.base;
    html! {
        header.top {
            a.brand href=(base.root()) { "streamjobs" }
            // On a narrow screen, the button opens the menu; elsewhere, and in browsers without
            // popovers, the menu is always shown.
            button #menu-button type="button" popovertarget="menu" { "Menu" }
            nav #menu popover aria-label="Pages" {
                a href=(base.root()) data-key="o" { "Overview" }
                a href=(base.to(&["dead"])) data-key="d" { "Dead letters" }
                @if ctx.state.has_archive() { a href=(base.to(&["archive"])) { "Archive" } }
                a href=(base.to(&["processes"])) data-key="c" { "Processes" }
                a href=(base.to(&["trends"])) { "Trends" }
                a href=(base.to(&["alerts"])) data-key="a" { "Alerts" }
            }
            div.live {
                span #liveness role="status" { "static" }
                button #pause type="button" hidden { "Pause updates" }
            }
        }
    }
}

fn trail(view: &View) -> Markup {
    html! {
        @if !view.trail.is_empty() {
            nav.trail aria-label="Breadcrumbs" {
                @for (text, link) in &view.trail { a href=(link) { (Untrusted(text)) } " / " }
                span aria-current="page" { (Untrusted(&view.title)) }
            }
        }
    }
}

fn footer(ctx: &RequestContext) -> Markup {
    html! {
        footer {
            p {
                "Signed in as " (Untrusted(ctx.access.who()))
                span.keys {
                    " · Keys: " kbd { "p" } " pause updates, " kbd { "/" } " filter, " kbd { "o" } " overview, "
                    kbd { "c" } " processes, " kbd { "a" } " alerts, " kbd { "d" } " dead letters"
                }
            }
        }
    }
}
