//! Names, ids, versions, trace contexts: short texts with rules.

use std::fmt::Display;
use std::str::FromStr;

use streamjobs::__store::Version;
use streamjobs::{ConsumerName, EntryId, EventId, GroupName, StreamName, TraceContext};

use crate::fuzzer::{FenceResult, fuzz};
use crate::quotes_nothing;

/// What is read and written is read again as the same.
fn round_trip<T>(text: &str) -> FenceResult
where
    T: FromStr + Display + PartialEq,
    T::Err: Display,
{
    match text.parse::<T>() {
        Ok(value) if value.to_string().parse::<T>().is_ok_and(|again| again == value) => {
            Ok("read".to_owned())
        }
        Ok(value) => Err(format!("{value} is not read as it was written")),
        Err(error) => quotes_nothing(&error.to_string()).map(|()| error.to_string()),
    }
}

#[test]
fn entry_ids_are_read_again_as_they_were_written() {
    fuzz("entry-ids", |input| {
        let text = String::from_utf8_lossy(input);
        if let Ok(id) = text.parse::<EntryId>() {
            let back = id.next().and_then(EntryId::previous);
            if back.is_some_and(|back| back != id) || id.next().is_some_and(|next| next <= id) {
                return Err(format!("the ids around {id} are wrong"));
            }
        }
        round_trip::<EntryId>(&text)
    });
}

#[test]
fn versions_are_read_again_as_they_were_written() {
    fuzz("versions", |input| round_trip::<Version>(&String::from_utf8_lossy(input)));
}

#[test]
fn trace_contexts_are_read_again_and_errors_quote_nothing() {
    fuzz("trace-contexts", |input| {
        let text = String::from_utf8_lossy(input);
        let plain =
            TraceContext::from_ids([1; 16], [2; 8], 1).map_err(|error| error.to_string())?;
        for set in [plain.clone().with_tracestate(&text), plain.with_baggage(&text)] {
            if let Err(error) = set {
                quotes_nothing(&error.to_string())?;
            }
        }
        round_trip::<TraceContext>(&text)
    });
}

#[test]
fn names_keep_their_rules_and_refusals_are_short_and_printable() {
    fuzz("names", |input| {
        let text = String::from_utf8_lossy(input);
        let names = [
            StreamName::new(&*text).map(|name| name.as_str().to_owned()),
            GroupName::new(&*text).map(|name| name.as_str().to_owned()),
            ConsumerName::new(&*text).map(|name| name.as_str().to_owned()),
            EventId::new(&*text).map(|name| name.as_str().to_owned()),
        ];
        let mut behaviour = String::new();
        for name in names {
            match name {
                Ok(name) if name != text => return Err("a name was changed".to_owned()),
                Ok(name)
                    if name.is_empty() || name.len() > 200 || name.contains(char::is_control) =>
                {
                    return Err("a name breaks its rule".to_owned());
                }
                Ok(_) => behaviour.push_str("read;"),
                Err(error) => {
                    let error = error.to_string();
                    if error.contains(char::is_control) || error.len() > 2_000 {
                        return Err(format!("not to be shown: {error:?}"));
                    }
                    behaviour.push_str(error.rsplit(':').next().unwrap_or_default());
                }
            }
        }
        Ok(behaviour)
    });
}
