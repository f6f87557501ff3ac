//! Reads forms and query strings.

use std::ops::Deref;
use std::str::FromStr;

use axum::Form;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use streamjobs::stream::EntryAddress;

use crate::csrf::TOKEN_FIELD;
use crate::fault::Fault;
use crate::layout;
use crate::request::RequestContext;

/// The request and the fields of a posted form, after its token was checked.
#[derive(Debug)]
pub(crate) struct PostedForm {
    pub(crate) ctx: RequestContext,
    fields: Fields,
}

/// The group in an address, and the fields of its query.
#[derive(Clone, Debug)]
pub(crate) struct GroupQuery {
    pub(crate) stream: String,
    pub(crate) group: String,
    pub(crate) fields: Fields,
}

/// Names and values of a form or a query. A name can occur more than once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(pub(crate) Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for PostedForm {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let ctx = request.extensions().get::<RequestContext>().cloned();
        let form = Form::<Vec<(String, String)>>::from_request(request, state).await;
        let Some(ctx) = ctx else {
            return Err(StatusCode::FORBIDDEN.into_response());
        };
        let refuse = |fault: Fault| layout::error_page(&ctx, &fault);
        let fields = match form {
            Ok(Form(fields)) => Fields(fields),
            Err(rejection) => {
                let mut fault = Fault::bad_request("The form cannot be read.");
                fault.status = rejection.into_response().status();
                return Err(refuse(fault));
            }
        };
        if !fields.get(TOKEN_FIELD).is_some_and(|token| ctx.token.matches(token)) {
            let text = "This form belongs to another session. Reload the page and try again.";
            return Err(refuse(Fault::forbidden(text)));
        }
        Ok(Self { ctx, fields })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for GroupQuery {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        type Parted = (Path<(String, String)>, Query<Vec<(String, String)>>);
        let (Path((stream, group)), Query(fields)) =
            Parted::from_request_parts(parts, state).await?;
        Ok(Self { stream, group, fields: Fields(fields) })
    }
}

impl Deref for PostedForm {
    type Target = Fields;

    fn deref(&self) -> &Fields {
        &self.fields
    }
}

impl Fields {
    /// The first value of a name. `None` if it is missing or empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|(of, _)| of == name).map(|(_, value)| value.trim());
        values.next().filter(|value| !value.is_empty())
    }

    /// The selected ids, at most 1,000. A larger selection is refused, so that no part of it is left
    /// out silently. `invalid` is the message for an id that cannot be parsed.
    pub(crate) fn selected<T: FromStr>(&self, invalid: &'static str) -> Result<Vec<T>, Fault> {
        let ids = self.0.iter().filter(|(name, _)| name == "id").map(|(_, id)| id.parse::<T>());
        let ids = ids.take(SELECTED_MAX + 1).collect::<Result<Vec<_>, _>>();
        match ids {
            Ok(ids) if ids.len() > SELECTED_MAX => {
                Err(Fault::bad_request("More than 1,000 are selected. Nothing was changed."))
            }
            ids => ids.map_err(|_| Fault::bad_request(invalid)),
        }
    }

    /// The selected entries.
    pub(crate) fn ids(&self) -> Result<Vec<EntryAddress>, Fault> {
        self.selected("Invalid entry id.")
    }

    /// The entry id under a name, if one is given.
    pub(crate) fn id(&self, name: &str) -> Result<Option<EntryAddress>, Fault> {
        let id = self.get(name).map(str::parse::<EntryAddress>).transpose();
        id.map_err(|_| Fault::bad_request("Invalid entry id."))
    }

    /// The number under a name, if one is given, capped at `max`.
    pub(crate) fn number(&self, name: &str, max: u64) -> Result<Option<u64>, Fault> {
        let number = self.get(name).map(str::parse::<u64>).transpose();
        let number = number.map_err(|_| Fault::bad_request("Invalid number."))?;
        Ok(number.map(|number| number.min(max)))
    }

    /// How many rows a page has: 50 by default, at least 1 and at most 200.
    pub(crate) fn page_size(&self) -> Result<usize, Fault> {
        let size = self.number("limit", PAGE_MAX)?.unwrap_or(PAGE).max(1);
        Ok(usize::try_from(size).unwrap_or(1))
    }
}

const PAGE: u64 = 50;
const PAGE_MAX: u64 = 200;
const SELECTED_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        Fields(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    #[test]
    fn numbers_are_kept_within_their_limits_and_invalid_ones_are_refused() {
        let size = |text| fields(&[("limit", text)]).page_size();
        assert_eq!([size(""), size("1000000000"), size("0"), size("7")], [50, 200, 1, 7].map(Ok));
        for text in
            ["-1", "1e3", "'; drop table", "\0", "18446744073709551616", &"9".repeat(1 << 20)]
        {
            assert_eq!(size(text), Err(Fault::bad_request("Invalid number.")));
        }
    }

    #[test]
    fn an_invalid_id_is_refused_without_repeating_it() {
        let given = fields(&[("id", "1-2"), ("other", "x"), ("id", "3-4")]);
        assert_eq!(given.ids().map(|ids| ids.len()), Ok(2));
        assert_eq!(fields(&[("id", "")]).id("id"), Ok(None));
        let refused = fields(&[("id", "<script>")]).id("id").unwrap_err();
        assert!(!refused.text.contains("script"), "{refused:?}");
        assert!(fields(&[("id", "1-2"), ("id", "nonsense")]).ids().is_err());
    }

    #[test]
    fn too_many_selected_ids_are_refused_and_not_cut() {
        let many = |count| fields(&vec![("id", "1-2"); count]).ids().map(|ids| ids.len());
        assert_eq!(many(SELECTED_MAX), Ok(SELECTED_MAX));
        let text = "More than 1,000 are selected. Nothing was changed.";
        assert_eq!(many(SELECTED_MAX + 1), Err(Fault::bad_request(text)));
    }
}
