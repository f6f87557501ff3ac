//! What a form of ours sends, and what an address asks for.

use std::ops::Deref;
use std::str::FromStr;

use axum::Form;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use streamjobs::EntryId;

use crate::csrf::TOKEN_FIELD;
use crate::fault::Fault;
use crate::layout;
use crate::state::Shared;
use crate::visit::Visit;

/// The fields of a form that one of our own pages sent: its token has been checked.
#[derive(Debug)]
pub(crate) struct Posted(Fields);

/// The group that an address is about, and what it asks for there.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) stream: String,
    pub(crate) group: String,
    pub(crate) fields: Fields,
}

/// Names and values, from a form or from an address. A name can come more than once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(pub(crate) Vec<(String, String)>);

impl FromRequest<Shared> for Posted {
    type Rejection = Response;

    async fn from_request(request: Request, state: &Shared) -> Result<Self, Response> {
        let visit = request.extensions().get::<Visit>().cloned();
        let form = Form::<Vec<(String, String)>>::from_request(request, state).await;
        let Some(visit) = visit else {
            return Err(StatusCode::FORBIDDEN.into_response());
        };
        let refuse = |fault: Fault| layout::failed(&visit, state, &fault);
        let fields = match form {
            Ok(Form(fields)) => Fields(fields),
            Err(rejection) => {
                let mut fault = Fault::bad_request("That is no form of this dashboard.");
                fault.status = rejection.into_response().status();
                return Err(refuse(fault));
            }
        };
        if !fields.get(TOKEN_FIELD).is_some_and(|token| visit.token.matches(token)) {
            let text = "This form is from another session; load the page again.";
            return Err(refuse(Fault::forbidden(text)));
        }
        Ok(Self(fields))
    }
}

impl FromRequestParts<Shared> for Asked {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self, Response> {
        type Parted = (Path<(String, String)>, Query<Vec<(String, String)>>);
        let (Path((stream, group)), Query(fields)) =
            Parted::from_request_parts(parts, state).await?;
        Ok(Self { stream, group, fields: Fields(fields) })
    }
}

impl Deref for Posted {
    type Target = Fields;

    fn deref(&self) -> &Fields {
        &self.0
    }
}

impl Fields {
    /// The first value of a name; none if it is missing or empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|(of, _)| of == name).map(|(_, value)| value.trim());
        values.next().filter(|value| !value.is_empty())
    }

    /// Everything that is chosen by its id: up to 1,000, and more is refused rather than left out.
    /// What is none is answered with the text.
    pub(crate) fn chosen<T: FromStr>(&self, none: &'static str) -> Result<Vec<T>, Fault> {
        let ids = self.0.iter().filter(|(name, _)| name == "id").map(|(_, id)| id.parse::<T>());
        let ids = ids.take(CHOSEN_MAX + 1).collect::<Result<Vec<_>, _>>();
        match ids {
            Ok(ids) if ids.len() > CHOSEN_MAX => {
                Err(Fault::bad_request("More than 1,000 are chosen; nothing was done."))
            }
            ids => ids.map_err(|_| Fault::bad_request(none)),
        }
    }

    /// Every entry that is chosen.
    pub(crate) fn ids(&self) -> Result<Vec<EntryId>, Fault> {
        self.chosen("That is no entry id.")
    }

    /// An entry id, if one is given.
    pub(crate) fn id(&self, name: &str) -> Result<Option<EntryId>, Fault> {
        let id = self.get(name).map(str::parse::<EntryId>).transpose();
        id.map_err(|_| Fault::bad_request("That is no entry id."))
    }

    /// A number, if one is given; more than the most is the most.
    pub(crate) fn number(&self, name: &str, most: u64) -> Result<Option<u64>, Fault> {
        let number = self.get(name).map(str::parse::<u64>).transpose();
        let number = number.map_err(|_| Fault::bad_request("That is no number."))?;
        Ok(number.map(|number| number.min(most)))
    }

    /// How many rows of a page are asked for: 50 unless said, at least one and at most 200.
    pub(crate) fn page_size(&self) -> Result<usize, Fault> {
        let size = self.number("limit", PAGE_MAX)?.unwrap_or(PAGE).max(1);
        Ok(usize::try_from(size).unwrap_or(1))
    }
}

const PAGE: u64 = 50;
const PAGE_MAX: u64 = 200;
const CHOSEN_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        Fields(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    #[test]
    fn numbers_are_held_within_their_limits_and_nonsense_is_refused() {
        let size = |text| fields(&[("limit", text)]).page_size();
        assert_eq!([size(""), size("1000000000"), size("0"), size("7")], [50, 200, 1, 7].map(Ok));
        for text in
            ["-1", "1e3", "'; drop table", "\0", "18446744073709551616", &"9".repeat(1 << 20)]
        {
            assert_eq!(size(text), Err(Fault::bad_request("That is no number.")));
        }
    }

    #[test]
    fn ids_are_ids_or_refused_and_the_text_is_not_repeated() {
        let given = fields(&[("id", "1-2"), ("other", "x"), ("id", "3-4")]);
        assert_eq!(given.ids().map(|ids| ids.len()), Ok(2));
        assert_eq!(fields(&[("id", "")]).id("id"), Ok(None));
        let refused = fields(&[("id", "<script>")]).id("id").unwrap_err();
        assert!(!refused.text.contains("script"), "{refused:?}");
        assert!(fields(&[("id", "1-2"), ("id", "nonsense")]).ids().is_err());
    }

    #[test]
    fn more_than_can_be_chosen_is_refused_and_not_cut() {
        let many = |count| fields(&vec![("id", "1-2"); count]).ids().map(|ids| ids.len());
        assert_eq!(many(CHOSEN_MAX), Ok(CHOSEN_MAX));
        let text = "More than 1,000 are chosen; nothing was done.";
        assert_eq!(many(CHOSEN_MAX + 1), Err(Fault::bad_request(text)));
    }
}
