//! The streams whose dead letters a handle has.

use std::sync::Arc;

use super::Selection;

/// All streams, or some.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope(Option<Arc<[String]>>);

impl Scope {
    pub(super) fn all() -> Self {
        Self::default()
    }

    /// The given streams that are also in this scope.
    pub(super) fn and(&self, streams: impl IntoIterator<Item = String>) -> Self {
        Self(Some(streams.into_iter().filter(|stream| self.includes(stream)).collect()))
    }

    pub(super) fn is_all(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn includes(&self, stream: &str) -> bool {
        self.0.as_ref().is_none_or(|streams| streams.iter().any(|known| known == stream))
    }

    /// The part of a selection that is in this scope.
    pub(super) fn of(&self, selection: &Selection) -> Selection {
        match &self.0 {
            None => selection.clone(),
            Some(streams) => selection.clone().within(streams),
        }
    }

    /// The streams as a parameter, `NULL` for all.
    pub(super) fn streams(&self) -> Option<Vec<String>> {
        self.0.as_ref().map(|streams| streams.to_vec())
    }
}

/// The condition that a redrive's stored selection is limited to the streams of the parameter.
macro_rules! redrive_in_scope {
    ($streams:literal) => {
        concat!(
            "(",
            $streams,
            "::text[] IS NULL OR selection ->> 'stream' = ANY (",
            $streams,
            ") OR selection -> 'streams' <@ to_jsonb(",
            $streams,
            "::text[]))"
        )
    };
}
pub(super) use redrive_in_scope;
