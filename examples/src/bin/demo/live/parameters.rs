//! Reads the parameters of the API's requests, and answers with errors.

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
use crate::live::workers::WorkerError;

/// Why a request failed.
#[derive(Debug)]
pub(crate) struct ApiError(pub(crate) StatusCode, pub(crate) String);

impl ApiError {
    pub(crate) fn bad(text: &str) -> Self {
        Self(StatusCode::BAD_REQUEST, text.to_owned())
    }

    pub(crate) fn missing(text: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, text.into())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

impl<E: Into<AnyError>> From<E> for ApiError {
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
    if let Some(error) = error.downcast_ref::<WorkerError>() {
        return match error {
            WorkerError::Unknown { .. } => StatusCode::NOT_FOUND,
            WorkerError::Taken { .. } | WorkerError::Control(_) => StatusCode::CONFLICT,
            WorkerError::Start(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
    }
    match error.downcast_ref::<DeadLetterError>() {
        Some(DeadLetterError::Unknown { .. }) => StatusCode::NOT_FOUND,
        Some(DeadLetterError::NotRunnable { .. }) => StatusCode::CONFLICT,
        _ if error.is::<NameError>() => StatusCode::BAD_REQUEST,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The parameters of a request: JSON or a form in the body of a POST, otherwise the query.
pub(crate) struct Parameters<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request(mut request: Request, state: &S) -> Result<Self, ApiError> {
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
        // curl sends no content type without a body.
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, form);
        let asked = Form::from_request(request, state).await;
        asked
            .map(|Form(asked)| Self(asked))
            .map_err(|error| unread(error.status(), error.body_text()))
    }
}

fn unread(status: StatusCode, text: String) -> ApiError {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError(status, "a request has at most 64 KiB".to_owned())
        }
        _ => ApiError(StatusCode::BAD_REQUEST, text),
    }
}

/// A boolean, as forms or JSON write it.
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
                _ => Err(D::Error::custom("expected 1 or 0")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[derive(Debug, Default, PartialEq, Eq, Deserialize)]
    struct Example {
        count: Option<u32>,
        #[serde(default)]
        exact: Flag,
    }

    async fn read(method: &str, uri: &str, kind: &str, body: &str) -> Result<Example, ApiError> {
        let request = Request::builder().method(method).uri(uri).header(CONTENT_TYPE, kind);
        let request = request.body(Body::from(body.to_owned())).unwrap();
        Parameters::from_request(request, &()).await.map(|Parameters(example)| example)
    }

    const FORM: &str = "application/x-www-form-urlencoded";
    const JSON: &str = "application/json; charset=utf-8";

    #[tokio::test]
    async fn forms_json_and_queries_have_the_same_meaning() {
        let example = Example { count: Some(3), exact: Flag(true) };
        assert_eq!(read("POST", "/", FORM, "count=3&exact=1").await.unwrap(), example);
        assert_eq!(read("POST", "/", FORM, "count=3&exact=on").await.unwrap(), example);
        assert_eq!(read("POST", "/", JSON, r#"{"count":3,"exact":true}"#).await.unwrap(), example);
        assert_eq!(read("GET", "/?count=3&exact=true", "", "").await.unwrap(), example);
        assert_eq!(read("POST", "/", "", "").await.unwrap(), Example::default());
        assert_eq!(read("POST", "/", FORM, "exact=0").await.unwrap(), Example::default());
    }

    #[tokio::test]
    async fn invalid_parameters_are_a_bad_request() {
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
