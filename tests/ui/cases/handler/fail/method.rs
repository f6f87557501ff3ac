use streamjobs::{Entry, handler};

struct Mailer;

impl Mailer {
    #[handler(group = "mail", stream = "orders")]
    async fn by_reference(&self, _: Entry) {}

    #[handler(group = "mail", stream = "orders")]
    async fn by_value(self, _: Entry) {}

    #[handler(group = "mail", stream = "orders")]
    async fn by_box(self: Box<Self>, _: Entry) {}
}

trait Mails {
    #[handler(group = "mail", stream = "orders")]
    async fn without_body(_: Entry);
}

fn main() {}
