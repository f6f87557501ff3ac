//! How a lever is asked, and how it says no.

use axum::extract::{Form, FromRequest, Json, Query, Request};
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::json;
use streamjobs::NameError;
use streamjobs::error::DeadLetterError;
use streamjobs::stream::StreamError;

use crate::AnyError;
use crate::live::crew::CrewError;

/// Why a lever was not pulled.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) StatusCode, pub(crate) String);

impl Refused {
    pub(crate) fn bad(text: &str) -> Self {
        Self(StatusCode::BAD_REQUEST, text.to_owned())
    }

    pub(crate) fn missing(text: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, text.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

impl<E: Into<AnyError>> From<E> for Refused {
    fn from(error: E) -> Self {
        let error = error.into();
        let status = status_of(&error);
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        Self(status, text)
    }
}

fn status_of(error: &AnyError) -> StatusCode {
    if let Some(error) = error.downcast_ref::<StreamError>() {
        return match error {
            StreamError::Missing { .. } | StreamError::GroupMissing { .. } => StatusCode::NOT_FOUND,
            StreamError::Unfinished { .. } | StreamError::Alive { .. } => StatusCode::CONFLICT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
    }
    if let Some(error) = error.downcast_ref::<CrewError>() {
        return match error {
            CrewError::Unknown { .. } => StatusCode::NOT_FOUND,
            CrewError::Taken { .. } | CrewError::Control(_) => StatusCode::CONFLICT,
            CrewError::Start(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
    }
    match error.downcast_ref::<DeadLetterError>() {
        Some(DeadLetterError::Unknown { .. }) => StatusCode::NOT_FOUND,
        Some(DeadLetterError::NotRunnable { .. }) => StatusCode::CONFLICT,
        _ if error.is::<NameError>() => StatusCode::BAD_REQUEST,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// What a lever is asked with: as JSON where the request says so, else as a form; in the address
/// where nothing is changed.
pub(crate) struct Asked<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Asked<T> {
    type Rejection = Refused;

    async fn from_request(mut request: Request, state: &S) -> Result<Self, Refused> {
        if request.method() != Method::POST {
            let asked = Query::try_from_uri(request.uri());
            return asked
                .map(|Query(asked)| Self(asked))
                .map_err(|error| unread(error.status(), error.body_text()));
        }
        let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or("").trim();
        if kind.eq_ignore_ascii_case("application/json") {
            let asked = Json::from_request(request, state).await;
            return asked
                .map(|Json(asked)| Self(asked))
                .map_err(|error| unread(error.status(), error.body_text()));
        }
        // As curl sends it without a body.
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, form);
        let asked = Form::from_request(request, state).await;
        asked
            .map(|Form(asked)| Self(asked))
            .map_err(|error| unread(error.status(), error.body_text()))
    }
}

fn unread(status: StatusCode, text: String) -> Refused {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => Refused(status, "a lever takes at most 64 KiB".to_owned()),
        _ => Refused(StatusCode::BAD_REQUEST, text),
    }
}

/// A yes or no, in the words of a form or of JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flag(pub(crate) bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Words {
            Plain(bool),
            Text(String),
        }
        match Words::deserialize(deserializer)? {
            Words::Plain(flag) => Ok(Self(flag)),
            Words::Text(text) => match text.as_str() {
                "1" | "true" | "on" => Ok(Self(true)),
                "0" | "false" | "off" | "" => Ok(Self(false)),
                _ => Err(D::Error::custom("neither 1 nor 0")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[derive(Debug, Default, PartialEq, Eq, Deserialize)]
    struct Lever {
        count: Option<u32>,
        #[serde(default)]
        exact: Flag,
    }

    async fn read(method: &str, uri: &str, kind: &str, body: &str) -> Result<Lever, Refused> {
        let request = Request::builder().method(method).uri(uri).header(CONTENT_TYPE, kind);
        let request = request.body(Body::from(body.to_owned())).unwrap();
        Asked::from_request(request, &()).await.map(|Asked(lever)| lever)
    }

    const FORM: &str = "application/x-www-form-urlencoded";
    const JSON: &str = "application/json; charset=utf-8";

    #[tokio::test]
    async fn forms_json_and_addresses_say_the_same() {
        let lever = Lever { count: Some(3), exact: Flag(true) };
        assert_eq!(read("POST", "/", FORM, "count=3&exact=1").await.unwrap(), lever);
        assert_eq!(read("POST", "/", FORM, "count=3&exact=on").await.unwrap(), lever);
        assert_eq!(read("POST", "/", JSON, r#"{"count":3,"exact":true}"#).await.unwrap(), lever);
        assert_eq!(read("GET", "/?count=3&exact=true", "", "").await.unwrap(), lever);
        assert_eq!(read("POST", "/", "", "").await.unwrap(), Lever::default());
        assert_eq!(read("POST", "/", FORM, "exact=0").await.unwrap(), Lever::default());
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_a_bad_request() {
        for (kind, body) in [
            (FORM, "count=-1"),
            (FORM, "count="),
            (FORM, "exact=perhaps"),
            (JSON, "{"),
            (JSON, ""),
            (JSON, r#"{"count":"x"}"#),
        ] {
            let refused = read("POST", "/", kind, body).await.unwrap_err();
            assert_eq!(refused.0, StatusCode::BAD_REQUEST, "{kind} {body}");
        }
        assert_eq!(read("GET", "/?count=x", "", "").await.unwrap_err().0, StatusCode::BAD_REQUEST);
        let large = "x".repeat(3_000_000);
        let refused = read("POST", "/", FORM, &large).await.unwrap_err();
        assert_eq!(refused.0, StatusCode::PAYLOAD_TOO_LARGE);
    }
}
