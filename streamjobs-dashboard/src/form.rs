//! What a form of ours sends, and what an address asks for.

use axum::Form;
use axum::extract::{FromRequest, Request};
use axum::response::Response;
use streamjobs::EntryId;

use crate::csrf::TOKEN_FIELD;
use crate::fault::Fault;
use crate::layout;
use crate::state::Shared;
use crate::visit::Visit;

/// The fields of a form that one of our own pages sent: its token has been checked.
#[derive(Debug)]
pub(crate) struct Posted(Fields);

/// Names and values, from a form or from an address. A name can come more than once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(pub(crate) Vec<(String, String)>);

impl FromRequest<Shared> for Posted {
    type Rejection = Response;

    async fn from_request(request: Request, state: &Shared) -> Result<Self, Response> {
        let visit = request.extensions().get::<Visit>().cloned();
        let form = Form::<Vec<(String, String)>>::from_request(request, state).await;
        let Some(visit) = visit else {
            return Err(axum::response::IntoResponse::into_response(
                axum::http::StatusCode::FORBIDDEN,
            ));
        };
        let refuse = |fault: Fault| layout::failed(&visit, state, &fault);
        let fields = match form {
            Ok(Form(fields)) => Fields(fields),
            Err(rejection) => {
                let mut fault = Fault::bad_request("That is no form of this dashboard.");
                fault.status = axum::response::IntoResponse::into_response(rejection).status();
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

impl std::ops::Deref for Posted {
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

    /// Every entry id of a name, at most 1,000.
    pub(crate) fn ids(&self, name: &str) -> Result<Vec<EntryId>, Fault> {
        let values = self.0.iter().filter(|(of, _)| of == name).take(IDS_MAX);
        let ids = values.map(|(_, value)| value.parse::<EntryId>());
        ids.collect::<Result<_, _>>().map_err(|_| Fault::bad_request("That is no entry id."))
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
const IDS_MAX: usize = 1_000;

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
        assert_eq!(given.ids("id").map(|ids| ids.len()), Ok(2));
        assert_eq!(fields(&[("id", "")]).id("id"), Ok(None));
        let refused = fields(&[("id", "<script>")]).id("id").unwrap_err();
        assert!(!refused.text.contains("script"), "{refused:?}");
        assert!(fields(&[("id", "1-2"), ("id", "nonsense")]).ids("id").is_err());
    }
}
