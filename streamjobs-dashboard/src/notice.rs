//! What came of an action, told on the page that follows it.

use axum::http::HeaderMap;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::csrf::cookie;

/// What came of an action. It travels in a cookie for one page: an address with the text in it
/// would let anybody put words into this page's mouth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice(pub(crate) String);

/// The notice that the browser brings.
pub(crate) fn read(headers: &HeaderMap) -> Option<Notice> {
    let encoded = cookie(headers, COOKIE).filter(|encoded| !encoded.is_empty())?;
    let text = percent_decode_str(&encoded).decode_utf8().ok()?;
    Some(Notice(text.into_owned()))
}

/// The cookie that leaves a notice for the next page.
pub(crate) fn leave(text: &str) -> String {
    let end = text.floor_char_boundary(TEXT_MAX);
    let text = utf8_percent_encode(text.get(..end).unwrap_or_default(), NON_ALPHANUMERIC);
    format!("{COOKIE}={text}; Path=/; Max-Age=60; HttpOnly; SameSite=Strict")
}

/// The cookie that takes the notice away.
pub(crate) fn forget() -> String {
    format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict")
}

const COOKIE: &str = "streamjobs-notice";
/// A browser keeps cookies of 4 KiB; each byte can take three.
const TEXT_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::header::COOKIE as COOKIES;

    #[test]
    fn a_notice_comes_back_as_it_was_and_can_be_taken_away() {
        let bring = |cookie: &str| {
            let pair = cookie.split(';').next().unwrap().to_owned();
            HeaderMap::from_iter([(COOKIES, pair.parse().unwrap())])
        };
        let text = "3 jobs; \"ü\" <script>\r\n";
        assert_eq!(read(&bring(&leave(text))), Some(Notice(text.into())));
        assert_eq!(read(&bring(&forget())), None);
        assert_eq!(read(&HeaderMap::new()), None);
        assert!(leave(&"é".repeat(5_000)).len() < 4_000 * 2);
    }
}
