//! What a server answers, and where a user says that it is.

use streamjobs::__store::StoreError;
use streamjobs::__store::redis::decoders;

use crate::fuzzer::fuzz;
use crate::quotes_nothing;

#[test]
fn answers_are_read_or_refused_by_the_name_of_their_command() {
    fuzz("replies", |input| {
        let Ok(answers) = decoders::every_way(input) else { return Ok("no answer".to_owned()) };
        let mut behaviour = String::new();
        for answer in answers {
            behaviour.push(if answer.is_ok() { 'o' } else { 'x' });
            // What a server refuses with is its own text, without what it was asked.
            if let Err(error @ StoreError::Protocol { .. }) = answer {
                quotes_nothing(&error.to_string())?;
            }
        }
        for entry in decoders::entries(input).unwrap_or_default() {
            quotes_nothing(&format!("{:?}", entry.id()))?;
        }
        Ok(behaviour)
    });
}

#[test]
fn a_scanned_read_is_what_the_client_crate_reads() {
    fuzz("replies", |input| {
        // Most of the corpus answers something else: an entry with it inside is a read.
        let read = [b"*1\r\n*2\r\n$1\r\ns\r\n".as_slice(), input].concat();
        let seen = [decoders::scanned(input)?, decoders::scanned(&read)?];
        Ok(format!("{seen:?}"))
    });
}

#[test]
fn info_is_read_as_far_as_it_makes_sense() {
    fuzz("info", |input| {
        let state = decoders::info(&String::from_utf8_lossy(input));
        let known = [state.memory.is_some(), state.replica.is_some(), state.connections.is_some()];
        Ok(format!("{known:?} {}", state.release.is_some()))
    });
}

#[test]
fn addresses_are_understood_or_refused_and_no_password_is_shown() {
    fuzz("addresses", |input| {
        // The password of every address of the corpus is `canary`. Where a change has moved it to
        // another part, which is shown, nothing can be said.
        let url = String::from_utf8_lossy(input);
        match decoders::address(&url) {
            Ok(shown) => {
                if url.starts_with("redis://:canary@") && url.matches("canary").count() == 1 {
                    quotes_nothing(&shown)?;
                }
                Ok("read".to_owned())
            }
            Err(error) => quotes_nothing(&format!("{error} {error:?}")).map(|()| error.to_string()),
        }
    });
}
