//! An attribute cannot see that it stands inside an `impl`; the compiler says so.

use streamjobs::{Entry, handler};

struct Mailer;

impl Mailer {
    #[handler(group = "mail", stream = "orders")]
    async fn confirm(_: Entry) {}
}

fn main() {}
