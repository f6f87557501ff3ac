//! `--watch`: repeats a command that only reads.

use std::io;
use std::time::Duration;

use jiff::Timestamp;

use crate::output::{Output, chain, print_error};
use crate::{Exit, Failure};

/// Runs a round of a command until the program is ended or its reader is gone.
///
/// A round that fails is reported and does not end the loop: the server may be back for the next
/// round.
pub(crate) async fn run(
    every: Duration,
    output: &mut Output,
    round: impl AsyncFn(&mut Output) -> Result<Exit, Failure>,
) -> Result<Exit, Failure> {
    loop {
        let now = Timestamp::now().strftime("%H:%M:%SZ");
        output.begin_round(&format!("every {}, last at {now}; Ctrl-C ends it", spelled(every)))?;
        let round = round(output).await;
        // What was written before an error belongs to this round.
        let flushed = output.flush();
        if let Err(failure) = round.and_then(|_| Ok(flushed?)) {
            let is_closed = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
            if failure.downcast_ref().is_some_and(is_closed) {
                return Err(failure);
            }
            print_error(&chain(failure.as_ref()));
        }
        tokio::time::sleep(every).await;
    }
}

fn spelled(every: Duration) -> String {
    match every.subsec_millis() {
        0 => format!("{} s", every.as_secs()),
        _ => format!("{} ms", every.as_millis()),
    }
}
