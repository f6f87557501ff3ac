//! The stream of an event type, as a checked name.

use std::cell::Cell;

use crate::model::event::Event;
use crate::model::name::{NameError, StreamName};

thread_local! {
    /// The name that this thread asked for last, with the text that it was made from.
    static LAST: Cell<Option<(&'static str, StreamName)>> = const { Cell::new(None) };
}

/// The stream that events of this type are published to. A thread that publishes one event after the other gets the
/// same name again, without checking and copying it.
pub(crate) fn stream_of<E: Event>() -> Result<StreamName, NameError> {
    // The thread may be about to end.
    let last = LAST.try_with(Cell::take).ok().flatten();
    let kept = match last {
        Some((text, name)) if std::ptr::eq(text, E::STREAM) => (text, name),
        _ => (E::STREAM, StreamName::read(E::STREAM)?),
    };
    let name = kept.1.clone();
    let _ended = LAST.try_with(|last| last.set(Some(kept))).is_err();
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::entry::Fields;
    use crate::model::event::{DecodeError, EncodeError, Payload};

    struct Of<const STREAM: usize>;

    const STREAMS: [&str; 3] = ["orders", "users", "a{b"];

    impl<const STREAM: usize> Event for Of<STREAM> {
        const STREAM: &'static str = STREAMS[STREAM];
        const TYPES: &'static [&'static str] = &["any"];

        fn event_type(&self) -> &'static str {
            "any"
        }

        fn encode(&self) -> Result<Fields, EncodeError> {
            Ok(Fields::new())
        }

        fn decode(_: &str, _: Payload<'_>) -> Result<Self, DecodeError> {
            Err(DecodeError::new("never read"))
        }
    }

    #[test]
    fn each_type_has_its_own_stream_and_a_refused_name_stays_refused() {
        for _ in 0..2 {
            assert_eq!(stream_of::<Of<0>>().unwrap().as_str(), "orders");
            assert_eq!(stream_of::<Of<0>>().unwrap().as_str(), "orders");
            assert_eq!(stream_of::<Of<1>>().unwrap().as_str(), "users");
            assert!(stream_of::<Of<2>>().is_err());
        }
    }
}
