use streamjobs::{Entry, handler};

#[handler(group = "mail", stream = "orders")]
async fn over_a_type<T: Send>(_: Entry) {}

#[handler(group = "mail", stream = "orders")]
async fn over_a_number<const N: usize>(_: Entry) {}

#[handler(group = "mail", stream = "orders")]
async fn over_a_lifetime<'a>(_: Entry, _: &'a mut u8) {}

#[handler(group = "mail", stream = "orders")]
async fn with_a_clause(_: Entry)
where
    u8: Copy,
{
}

fn main() {}
