//! `streamjobs completions` and `man`, generated from the arguments themselves.

use std::io::{self, Write as _};

use clap::CommandFactory as _;

use crate::arguments::{About, Arguments};
use crate::{Exit, Failure};

pub(crate) fn run(command: &About) -> Result<Exit, Failure> {
    let (mut arguments, mut text) = (Arguments::command(), Vec::new());
    match command {
        About::Completions { shell } => {
            clap_complete::generate(*shell, &mut arguments, "streamjobs", &mut text);
        }
        About::Man { folder: Some(folder) } => clap_mangen::generate_to(arguments, folder)?,
        About::Man { folder: None } => clap_mangen::Man::new(arguments).render(&mut text)?,
    }
    io::stdout().write_all(&text)?;
    Ok(Exit::Ok)
}
