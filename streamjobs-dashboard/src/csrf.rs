//! Protection against cross-site request forgery.

use axum::http::header::{COOKIE, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Uri};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

/// A double-submit token: the same value in a cookie and in each form. Another site can make a browser
/// send the cookie, but cannot read it to put it into a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token(String);

impl Token {
    /// The token in the request's cookie, or a new token.
    pub(crate) fn of(headers: &HeaderMap) -> (Self, TokenSource) {
        let source = cookie(headers, TOKEN_COOKIE).and_then(|text| Uuid::try_parse(&text).ok());
        match source {
            Some(token) => (Self(token.simple().to_string()), TokenSource::Cookie),
            None => (Self(Uuid::new_v4().simple().to_string()), TokenSource::New),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn matches(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }

    pub(crate) fn cookie(&self) -> String {
        format!("{TOKEN_COOKIE}={}; Path=/; HttpOnly; SameSite=Strict", self.0)
    }
}

/// Where a token comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenSource {
    /// The browser sent it.
    Cookie,
    /// It was created for this request, and has to be sent to the browser.
    New,
}

/// Whether a page of the same origin sent the request, by the headers that browsers set. A request
/// without any of them is refused: current browsers send `Sec-Fetch-Site` or `Origin`.
pub(crate) fn is_same_origin(request: &Parts) -> bool {
    let header = |name| request.headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(site) = header(HeaderName::from_static("sec-fetch-site")) {
        return site == "same-origin";
    }
    let host = header(HOST).or_else(|| request.uri.authority().map(|host| host.as_str()));
    let origin = header(ORIGIN).and_then(|origin| origin.parse::<Uri>().ok());
    let origin = origin.as_ref().filter(|origin| origin.scheme().is_some());
    let origin = origin.and_then(|origin| origin.authority());
    match (origin, host) {
        (Some(origin), Some(host)) => origin.as_str().eq_ignore_ascii_case(host),
        _ => false,
    }
}

/// The value of a cookie of the request.
pub(crate) fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let texts = headers.get_all(COOKIE).into_iter().filter_map(|header| header.to_str().ok());
    let mut cookies = texts.flat_map(|text| text.split(';'));
    cookies.find_map(|pair| {
        let (of, value) = pair.trim().split_once('=')?;
        (of == name).then(|| value.to_owned())
    })
}

/// The name of the form field that holds the token.
pub(crate) const TOKEN_FIELD: &str = "token";
const TOKEN_COOKIE: &str = "streamjobs-token";

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    fn request(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::post("/jobs/x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn is_accepted(headers: &[(&str, &str)]) -> bool {
        is_same_origin(&request(headers))
    }

    #[test]
    fn only_requests_from_the_same_origin_are_accepted() {
        assert!(is_accepted(&[("sec-fetch-site", "same-origin"), ("host", "a")]));
        for site in ["cross-site", "same-site", "none", "", "same-origin, cross-site"] {
            // A matching origin does not override `Sec-Fetch-Site`.
            let headers = [("sec-fetch-site", site), ("host", "a"), ("origin", "http://a")];
            assert!(!is_accepted(&headers), "{site}");
        }
    }

    #[test]
    fn an_older_browser_is_accepted_with_the_origin_of_the_host() {
        assert!(is_accepted(&[("host", "a.example:8080"), ("origin", "https://A.example:8080")]));
        for origin in
            ["null", "https://b", "https://a:81", "", "https://a.evil", "file://", "a.example"]
        {
            assert!(!is_accepted(&[("host", "a.example"), ("origin", origin)]), "{origin}");
        }
        assert!(!is_accepted(&[("host", "a")]), "no origin");
        assert!(!is_accepted(&[("origin", "http://a")]), "no host");
    }

    #[test]
    fn a_token_is_kept_while_the_browser_sends_it_and_no_other_matches() {
        let (token, source) = Token::of(&HeaderMap::new());
        assert_eq!(source, TokenSource::New);
        let (pair, rest) =
            token.cookie().split_once(';').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        assert!(rest.contains("HttpOnly") && rest.contains("SameSite=Strict"), "{rest}");
        let cookies = format!("other=1; {pair}");
        let again = Token::of(&request(&[("cookie", &cookies)]).headers);
        assert_eq!(again, (token.clone(), TokenSource::Cookie));
        assert!(token.matches(again.0.as_str()) && !token.matches("") && !token.matches("x"));
        let forged = request(&[("cookie", "streamjobs-token=<script>")]);
        assert_eq!(Token::of(&forged.headers).1, TokenSource::New);
    }
}
