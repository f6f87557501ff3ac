//! Whether a request that changes something was sent by a page of ours.

use axum::http::header::{COOKIE, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Uri};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

/// What a browser is given to prove that it sends our own form: the same in a cookie and in the
/// form. Another site can have the cookie sent along, but cannot read it to put it into a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token(String);

impl Token {
    /// The one that the request brings in its cookie, or a new one.
    pub(crate) fn of(headers: &HeaderMap) -> (Self, Brought) {
        let brought = cookie(headers, TOKEN_COOKIE).and_then(|text| Uuid::try_parse(&text).ok());
        match brought {
            Some(token) => (Self(token.simple().to_string()), Brought::Yes),
            None => (Self(Uuid::new_v4().simple().to_string()), Brought::No),
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

/// Whether the browser had a token. Closed on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Brought {
    Yes,
    No,
}

/// Whether a page of the same origin sent the request, as the browser says. One that says nothing
/// at all is no browser of this decade, or hides it.
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

/// The value of a cookie that the request brings.
pub(crate) fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let texts = headers.get_all(COOKIE).into_iter().filter_map(|header| header.to_str().ok());
    let mut cookies = texts.flat_map(|text| text.split(';'));
    cookies.find_map(|pair| {
        let (of, value) = pair.trim().split_once('=')?;
        (of == name).then(|| value.to_owned())
    })
}

/// The name of the field in which a form brings its token.
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

    fn passes(headers: &[(&str, &str)]) -> bool {
        is_same_origin(&request(headers))
    }

    #[test]
    fn only_what_a_page_of_the_same_origin_sent_passes() {
        assert!(passes(&[("sec-fetch-site", "same-origin"), ("host", "a")]));
        for site in ["cross-site", "same-site", "none", "", "same-origin, cross-site"] {
            // An origin that fits does not make up for it.
            let headers = [("sec-fetch-site", site), ("host", "a"), ("origin", "http://a")];
            assert!(!passes(&headers), "{site}");
        }
    }

    #[test]
    fn an_older_browser_passes_with_the_origin_of_the_host() {
        assert!(passes(&[("host", "a.example:8080"), ("origin", "https://A.example:8080")]));
        for origin in
            ["null", "https://b", "https://a:81", "", "https://a.evil", "file://", "a.example"]
        {
            assert!(!passes(&[("host", "a.example"), ("origin", origin)]), "{origin}");
        }
        assert!(!passes(&[("host", "a")]), "nothing says where it comes from");
        assert!(!passes(&[("origin", "http://a")]), "nothing says where it goes");
    }

    #[test]
    fn a_token_is_kept_once_the_browser_has_it_and_no_other_matches() {
        let (token, brought) = Token::of(&HeaderMap::new());
        assert_eq!(brought, Brought::No);
        let (pair, rest) =
            token.cookie().split_once(';').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        assert!(rest.contains("HttpOnly") && rest.contains("SameSite=Strict"), "{rest}");
        let cookies = format!("other=1; {pair}");
        let again = Token::of(&request(&[("cookie", &cookies)]).headers);
        assert_eq!(again, (token.clone(), Brought::Yes));
        assert!(token.matches(again.0.as_str()) && !token.matches("") && !token.matches("x"));
        let forged = request(&[("cookie", "streamjobs-token=<script>")]);
        assert_eq!(Token::of(&forged.headers).1, Brought::No);
    }
}
