//! Static files of the pages, compiled into the program.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::base::Base;

/// A file that is compiled into the program.
#[derive(Debug)]
pub(crate) struct Asset {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
}

pub(crate) const STYLE: Asset = Asset {
    name: "dashboard.css",
    kind: "text/css; charset=utf-8",
    text: include_str!("../assets/dashboard.css"),
};
pub(crate) const SCRIPT: Asset = Asset {
    name: "dashboard.js",
    kind: "text/javascript; charset=utf-8",
    text: include_str!("../assets/dashboard.js"),
};
pub(crate) const MORPH: Asset = Asset {
    name: "idiomorph.js",
    kind: "text/javascript; charset=utf-8",
    text: include_str!("../assets/idiomorph.min.js"),
};
pub(crate) const ICON: Asset =
    Asset { name: "icon.svg", kind: "image/svg+xml", text: include_str!("../assets/icon.svg") };

pub(crate) fn link(base: &Base, asset: &Asset) -> String {
    base.to(&["assets", asset.name])
}

pub(crate) async fn serve(Path(name): Path<String>) -> Response {
    let all = [&STYLE, &SCRIPT, &MORPH, &ICON];
    match all.into_iter().find(|asset| asset.name == name) {
        Some(asset) => ([(CONTENT_TYPE, asset.kind)], asset.text).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_links_are_hidden_only_where_the_menu_can_open_them() {
        let (_, narrow) = STYLE.text.split_once("@media (max-width: 640px)").unwrap();
        let (before, rest) = narrow.split_once("@supports selector(:popover-open) {").unwrap();
        let (within, after) = rest.split_once("\n  }\n").unwrap();
        for rule in ["#menu-button { display: block; }", "nav[popover] { display: none;"] {
            assert!(within.contains(rule), "{rule}");
            assert!(!before.contains(rule) && !after.contains(rule), "{rule}");
        }
    }
}
