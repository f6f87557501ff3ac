//! Relative links, which work under any mount path and behind any proxy.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The relative reference from a page to the path at which the dashboard is mounted. It stays correct
/// when a proxy adds or removes a path prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base(String);

impl Base {
    /// The base for the path of a request, of which `own` is the part below the mount.
    pub(crate) fn of(asked: &str, own: &str) -> Self {
        let depth = own.bytes().filter(|byte| *byte == b'/').count();
        let at_root = own.trim_matches('/').is_empty();
        match asked.rsplit('/').next() {
            // At `/jobs` without a slash, a relative link resolves beside `jobs` and not below it.
            Some(last) if at_root && !last.is_empty() => Self(format!("./{last}/")),
            _ if at_root => Self("./".to_owned()),
            _ => Self(format!("./{}", "../".repeat(depth.saturating_sub(1)))),
        }
    }

    /// A link to the page at these path segments.
    pub(crate) fn to(&self, segments: &[&str]) -> String {
        let segments = segments.iter().map(|segment| segment_of(segment));
        format!("{}{}", self.0, segments.collect::<Vec<_>>().join("/"))
    }

    /// A link to the page at these path segments, with a query.
    pub(crate) fn with_query(&self, segments: &[&str], query: &[(&str, &str)]) -> String {
        let pairs = query.iter().map(|(name, value)| format!("{name}={}", segment_of(value)));
        format!("{}?{}", self.to(segments), pairs.collect::<Vec<_>>().join("&"))
    }

    /// A link to the overview. The overview has an address of its own below the mount, because
    /// whether the mount works with or without a trailing slash depends on the application.
    pub(crate) fn root(&self) -> String {
        self.to(&["overview"])
    }
}

/// The id of a row, from the parts that identify its object. Different parts give different ids, without
/// spaces: the separator is never a part of an encoded name.
pub(crate) fn row_id(kind: &str, parts: &[&str]) -> String {
    let parts = parts.iter().map(|part| segment_of(part)).collect::<Vec<_>>();
    format!("{kind}-{}", parts.join("/"))
}

fn segment_of(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_the_mount_from_every_depth() {
        assert_eq!(Base::of("/jobs", "/").to(&["alerts"]), "./jobs/alerts");
        assert_eq!(Base::of("/a/b/jobs", "/").to(&["alerts"]), "./jobs/alerts");
        assert_eq!(Base::of("/jobs/", "/").to(&["alerts"]), "./alerts");
        assert_eq!(Base::of("/", "/").to(&["alerts"]), "./alerts");
        assert_eq!(Base::of("/jobs/alerts", "/alerts").to(&["alerts"]), "./alerts");
        let deep = Base::of("/jobs/streams/a/groups/b", "/streams/a/groups/b");
        assert_eq!(deep.to(&["alerts"]), "./../../../alerts");
    }

    #[test]
    fn rows_of_different_names_have_different_ids() {
        let ids =
            [["a-b", "c"], ["a", "b-c"], ["a/b", "c"], ["a", "b/c"], ["a%2Fb", "c"], ["a b", "c"]];
        let ids = ids.map(|parts| row_id("g", &parts));
        assert_eq!(ids[0], "g-a-b/c");
        let distinct = ids.iter().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(distinct.len(), ids.len(), "{ids:?}");
        assert!(ids.iter().all(|id| !id.contains(' ')), "{ids:?}");
    }

    #[test]
    fn names_are_escaped_in_links() {
        let base = Base::of("/jobs/alerts", "/alerts");
        assert_eq!(base.to(&["streams", "a/b?c#\"<é"]), "./streams/a%2Fb%3Fc%23%22%3C%C3%A9");
        assert_eq!(base.with_query(&["x"], &[("a", "1&b=2")]), "./x?a=1%26b%3D2");
    }
}
