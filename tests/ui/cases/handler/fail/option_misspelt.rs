use streamjobs::{Entry, handler};

#[handler(group = "mail", stream = "orders", max_attempt = 5)]
async fn almost(_: Entry) {}

#[handler(group = "mail", stream = "orders", time_out = "30s", conccurency = 4)]
async fn two_at_once(_: Entry) {}

#[handler(gruop = "mail", stream = "orders")]
async fn without_its_group(_: Entry) {}

#[handler(group = "mail", topic = "orders", workers = 4)]
async fn words_of_other_systems(_: Entry) {}

#[handler(group = "mail", stream = "orders", colour = "red")]
async fn like_none(_: Entry) {}

fn main() {}
