//! Arguments of the commands about the program itself, which ask no server.

use std::path::PathBuf;

use clap::Subcommand;
use clap_complete::Shell;

// Hidden in the list of commands, all of which are about a server. The end of the help names them.
#[derive(Debug, Subcommand)]
pub(crate) enum About {
    /// Print completions of commands and options for a shell.
    #[command(
        hide = true,
        after_help = "\
Example:
  streamjobs completions bash > /etc/bash_completion.d/streamjobs
  streamjobs completions zsh > ~/.zfunc/_streamjobs
  streamjobs completions fish > ~/.config/fish/completions/streamjobs.fish"
    )]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page of the program, or write those of all commands into a folder.
    #[command(
        hide = true,
        after_help = "\
Example:
  streamjobs man | man -l -
  streamjobs man --folder /usr/local/share/man/man1"
    )]
    Man {
        /// Write one page for each command into this folder, which exists.
        #[arg(long)]
        folder: Option<PathBuf>,
    },
}
