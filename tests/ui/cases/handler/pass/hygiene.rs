//! Names in the user's scope do not affect generated code.

#[path = "../../support.rs"]
mod support;

#[allow(dead_code)]
mod scope {
    pub mod core {}
    pub mod std {}
    pub mod streamjobs {}
    pub enum Option {}
    pub enum Result {}
    pub struct Some;
    pub struct None;
    pub struct Ok;
    pub struct Err;
    pub struct Box;
    pub struct Send;
    pub struct HandlerDef;
    pub struct HandlerItem;
    #[allow(non_upper_case_globals)]
    pub const job: u8 = 0;
    #[allow(non_upper_case_globals)]
    pub const outcome: u8 = 0;
    #[allow(non_upper_case_globals)]
    pub static value: u8 = 0;

    use crate::support::{Mailer, OrderPlaced, Transaction};

    #[::streamjobs::handler(
        group = "mail",
        concurrency = 2,
        timeout = "1s",
        backoff = "1s..2s",
        start = "1-1"
    )]
    async fn surrounded(_: OrderPlaced, _: ::streamjobs::State<Mailer>, _: &mut Transaction) {}

    #[::streamjobs::handler(group = "mail", stream = "orders")]
    async fn run(run: ::streamjobs::Entry) {
        drop(run);
    }
}

fn main() {}
