//! Links that hold under whatever path the dashboard is mounted, behind whatever proxy.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The way from a page back to where the dashboard is mounted, as a relative reference. A proxy may
/// put anything in front of the path; what a page links to stays beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base(String);

impl Base {
    /// From the path that the application was asked for, and the part of it that is the
    /// dashboard's.
    pub(crate) fn of(asked: &str, own: &str) -> Self {
        let depth = own.bytes().filter(|byte| *byte == b'/').count();
        let at_root = own.trim_matches('/').is_empty();
        match asked.rsplit('/').next() {
            // Mounted at `/jobs` and asked for just that: links are beside `jobs`, not in it.
            Some(last) if at_root && !last.is_empty() => Self(format!("./{last}/")),
            _ if at_root => Self("./".to_owned()),
            _ => Self(format!("./{}", "../".repeat(depth.saturating_sub(1)))),
        }
    }

    /// A link to what these segments name.
    pub(crate) fn to(&self, segments: &[&str]) -> String {
        let segments = segments.iter().map(|segment| segment_of(segment));
        format!("{}{}", self.0, segments.collect::<Vec<_>>().join("/"))
    }

    /// A link to what these segments name, with a query.
    pub(crate) fn with_query(&self, segments: &[&str], query: &[(&str, &str)]) -> String {
        let pairs = query.iter().map(|(name, value)| format!("{name}={}", segment_of(value)));
        format!("{}?{}", self.to(segments), pairs.collect::<Vec<_>>().join("&"))
    }

    /// A link to the first page. It has an address of its own below the mount, because nobody but
    /// the application knows whether it answers to the mount with a slash or without one.
    pub(crate) fn root(&self) -> String {
        self.to(&["overview"])
    }
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
    fn names_are_data_in_links_too() {
        let base = Base::of("/jobs/alerts", "/alerts");
        assert_eq!(base.to(&["streams", "a/b?c#\"<é"]), "./streams/a%2Fb%3Fc%23%22%3C%C3%A9");
        assert_eq!(base.with_query(&["x"], &[("a", "1&b=2")]), "./x?a=1%26b%3D2");
    }
}
