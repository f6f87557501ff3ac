//! The options of a handler that runs for several jobs at once.

use std::num::NonZeroU32;
use std::time::Duration;

use syn::{Error, LitStr};

use super::parse::Options;
use crate::errors::Errors;
use crate::{count, duration};

/// How many jobs share a run, and how long the first job waits for others.
#[derive(Clone, Copy)]
pub(crate) struct Batch {
    pub(crate) size: NonZeroU32,
    pub(crate) wait: Duration,
}

impl Batch {
    pub(super) fn new(options: &Options, errors: &mut Errors) -> Option<Self> {
        if let Some(span) = options.span_of("wait").filter(|_| !options.names("batch")) {
            errors
                .push(Error::new(span, "`wait` belongs to `batch`: add one, as in `batch = 100`"));
        }
        if let Some(span) = options.span_of("batch").filter(|_| options.is_scheduled()) {
            let message = "a schedule publishes one event at a time: remove `batch`";
            errors.push(Error::new(span, message));
        }
        let size = options.batch.as_ref().map(|literal| count::parse("batch", literal));
        let size = errors.keep(size.transpose()).flatten();
        let wait = options.wait.as_ref().and_then(|text| errors.keep(wait(text)));
        Some(Self { size: size?, wait: wait.unwrap_or(WAIT) })
    }
}

fn wait(text: &LitStr) -> syn::Result<Duration> {
    duration::parse(&text.value()).map_err(|message| Error::new(text.span(), message))
}

/// How long the first job waits by default: long enough for the entries of one server answer, and
/// short compared with most work.
const WAIT: Duration = Duration::from_millis(50);
