//! A list can name only functions that it can call.

mod mail {
    use streamjobs::{Entry, handler};

    #[handler(group = "mail", stream = "orders")]
    async fn confirm(_: Entry) {}
}

fn main() {
    let _ = streamjobs::handlers![mail::confirm];
}
