//! The result of an action, shown once on the next page. It travels in a cookie and not in the address,
//! so that a link cannot make a page show text of its author's choice.

use axum::http::HeaderMap;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::csrf::cookie;
use crate::format;

/// The notice in the request's cookie.
pub(crate) fn read(headers: &HeaderMap) -> Option<String> {
    let encoded = cookie(headers, COOKIE).filter(|encoded| !encoded.is_empty())?;
    let text = percent_decode_str(&encoded).decode_utf8().ok()?;
    Some(text.into_owned())
}

/// The cookie that carries a notice to the next page.
pub(crate) fn set(text: &str) -> String {
    let text = utf8_percent_encode(format::beginning(text, TEXT_MAX), NON_ALPHANUMERIC);
    format!("{COOKIE}={text}; Path=/; Max-Age=60; HttpOnly; SameSite=Strict")
}

/// The cookie that removes the notice.
pub(crate) fn clear() -> String {
    format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict")
}

const COOKIE: &str = "streamjobs-notice";
/// The longest notice in bytes. Browsers keep cookies of up to 4 KiB, and percent-encoding turns
/// one byte into three.
const TEXT_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::header::COOKIE as COOKIES;

    #[test]
    fn a_notice_is_read_back_unchanged_and_can_be_removed() {
        let request = |cookie: &str| {
            let pair = cookie.split(';').next().unwrap().to_owned();
            HeaderMap::from_iter([(COOKIES, pair.parse().unwrap())])
        };
        let text = "3 jobs; \"ü\" <script>\r\n";
        assert_eq!(read(&request(&set(text))), Some(text.into()));
        assert_eq!(read(&request(&clear())), None);
        assert_eq!(read(&HeaderMap::new()), None);
        assert!(set(&"é".repeat(5_000)).len() < 4_000 * 2);
    }
}
