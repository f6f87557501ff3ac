//! Stands for the application's way to send mail.

use std::io::{Error, ErrorKind};

#[derive(Clone)]
pub(crate) struct Mailer;

impl Mailer {
    pub(crate) async fn send(&self, to: &str, what: &str) -> Result<(), Error> {
        to.split_once('@').ok_or(ErrorKind::InvalidInput)?;
        println!("{what}, {to}");
        Ok(())
    }
}
