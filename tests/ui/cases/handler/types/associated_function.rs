//! An attribute cannot see that it is inside an `impl`, so the compiler reports it.

use streamjobs::{Entry, handler};

struct Mailer;

impl Mailer {
    #[handler(group = "mail", stream = "orders")]
    async fn confirm(_: Entry) {}
}

fn main() {}
