//! Modules, function bodies, macros, and imports of both namespaces at once.

#[path = "../../support.rs"]
mod support;

use streamjobs::{Entry, handler, handlers};

mod jobs {
    use streamjobs::handler;

    use crate::support::OrderPlaced;

    #[handler(group = "mail")]
    pub async fn send_email(_: OrderPlaced) {}

    pub(crate) mod inner {
        #[streamjobs::handler(group = "audit", stream = "orders")]
        pub(in crate::jobs) async fn hidden(_: streamjobs::Entry) {}

        #[streamjobs::handler(group = "audit", stream = "orders")]
        pub(crate) async fn note(_: streamjobs::Entry) {}
    }

    pub fn hidden() -> usize {
        streamjobs::handlers![inner::hidden].len()
    }
}

use jobs::send_email;

#[handler(group = "mail", stream = "orders")]
async fn r#type(_: Entry) {}

macro_rules! audit {
    ($name:ident, $group:expr, $count:literal, $entry:ty) => {
        #[handler(group = $group, stream = "orders", concurrency = $count)]
        async fn $name(entry: $entry) {
            drop(entry);
        }
    };
}

audit!(from_a_macro, "audit", 4, Entry);

fn main() {
    struct Local;

    impl streamjobs::FromJob for Local {
        fn from_job(_: &streamjobs::Job) -> Result<Self, streamjobs::JobError> {
            Ok(Self)
        }
    }

    #[handler(group = "local", stream = "orders")]
    async fn in_a_body(_: Entry, _: Local) {}

    assert_eq!(jobs::hidden(), 1);
    let names = handlers![send_email, jobs::inner::note, r#type, from_a_macro, in_a_body]
        .map(|handler| handler.name);
    assert_eq!(names, ["send_email", "note", "type", "from_a_macro", "in_a_body"]);
    // The function stays callable, as tests need it.
    drop((r#type(Entry::new(Default::default(), vec![])), in_a_body));
}
