//! Finds in a client's bytes which requests the server will carry out.

use std::borrow::Cow;
use std::collections::HashMap;

/// The protocol between a server and its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// Commands, whose words are in the bytes unchanged.
    Redis,
    /// Statements, which are sent once and then carried out by their names.
    Postgres,
}

/// Reads the requests of one link.
#[derive(Debug)]
pub(super) enum Wire {
    Redis,
    Postgres(Messages),
}

impl Wire {
    pub(super) fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Redis => Self::Redis,
            Protocol::Postgres => Self::Postgres(Messages::default()),
        }
    }

    /// The text of each request that the server will carry out once it has this chunk.
    pub(super) fn read<'a>(&mut self, chunk: &'a [u8]) -> Vec<Cow<'a, [u8]>> {
        match self {
            Self::Redis => vec![Cow::Borrowed(chunk)],
            Self::Postgres(messages) => messages.read(chunk).into_iter().map(Cow::Owned).collect(),
        }
    }
}

/// The messages that a client of Postgres sends.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// The beginning of a message whose end has not arrived.
    begun: Vec<u8>,
    /// Whether the first message has passed, which is the only kind without a letter in front.
    greeted: bool,
    /// The text of each prepared statement, by its name; the empty name is a name too.
    statements: HashMap<Vec<u8>, Vec<u8>>,
}

/// The numbers by which a client asks for encryption before it greets: TLS and GSSAPI.
const ENCRYPTION: [u32; 2] = [80_877_103, 80_877_104];

impl Messages {
    /// The statements that are executed by the messages that end in this chunk.
    ///
    /// Preparing a statement does not execute it, and so is not counted. Binding values to it is
    /// counted, because clients execute it right afterwards.
    fn read(&mut self, chunk: &[u8]) -> Vec<Vec<u8>> {
        self.begun.extend_from_slice(chunk);
        let (bytes, mut rest) = (std::mem::take(&mut self.begun), 0);
        let mut carried_out = Vec::new();
        while let Some((kind, body, length)) = message(&bytes[rest..], self.greeted) {
            carried_out.extend(self.statement(kind, body));
            rest += length;
        }
        self.begun = bytes[rest..].to_vec();
        carried_out
    }

    fn statement(&mut self, kind: Option<u8>, body: &[u8]) -> Option<Vec<u8>> {
        let mut texts = body.split(|byte| *byte == 0).map(<[u8]>::to_vec);
        match kind {
            None => {
                let number = body.first_chunk().map(|number| u32::from_be_bytes(*number));
                self.greeted = number.is_some_and(|number| !ENCRYPTION.contains(&number));
                None
            }
            Some(b'Q') => texts.next(),
            Some(b'P') => {
                let (name, text) = (texts.next()?, texts.next()?);
                self.statements.insert(name, text);
                None
            }
            Some(b'B') => {
                let _portal = texts.next()?;
                self.statements.get(&texts.next()?).cloned()
            }
            Some(_) => None,
        }
    }
}

/// The message with which `bytes` begin, if it is complete: its letter, its contents, and its total
/// length.
fn message(bytes: &[u8], greeted: bool) -> Option<(Option<u8>, &[u8], usize)> {
    let (kind, rest) = match greeted {
        true => bytes.split_first().map(|(kind, rest)| (Some(*kind), rest))?,
        false => (None, bytes),
    };
    // The length counts its own four bytes but not the letter.
    let length = u32::from_be_bytes(*rest.first_chunk()?) as usize;
    let body = rest.get(4..length)?;
    Some((kind, body, length + usize::from(greeted)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(kind: &[u8], body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [kind, &length, body].concat()
    }

    fn conversation() -> Vec<u8> {
        [
            sent(b"", &ENCRYPTION[0].to_be_bytes()),
            sent(b"", b"\x00\x03\x00\x00user\0streamjobs_run\0\0"),
            sent(b"Q", b"BEGIN\0"),
            sent(b"P", b"s1\0INSERT INTO charges VALUES ($1)\0\x00\x00"),
            sent(b"D", b"Ss1\0"),
            sent(b"S", b""),
            sent(b"B", b"\0s1\0\x00\x00\x00\x00\x00\x00"),
            sent(b"E", b"\0\x00\x00\x00\x00"),
            sent(b"B", b"\0unknown\0\x00\x00\x00\x00\x00\x00"),
            sent(b"B", b"\0s1\0\x00\x00\x00\x00\x00\x00"),
            sent(b"Q", b"COMMIT\0"),
        ]
        .concat()
    }

    const CARRIED_OUT: [&str; 4] =
        ["BEGIN", "INSERT INTO charges VALUES ($1)", "INSERT INTO charges VALUES ($1)", "COMMIT"];

    #[test]
    fn statements_count_when_they_are_carried_out_and_each_time() {
        let found = Messages::default().read(&conversation());
        assert_eq!(found, CARRIED_OUT.map(|text| text.as_bytes().to_vec()));
    }

    #[test]
    fn messages_may_come_in_any_pieces() {
        for size in [1, 3, 7] {
            let mut messages = Messages::default();
            let bytes = conversation();
            let found: Vec<_> = bytes.chunks(size).flat_map(|piece| messages.read(piece)).collect();
            assert_eq!(found, CARRIED_OUT.map(|text| text.as_bytes().to_vec()));
            assert!(messages.begun.is_empty());
        }
    }
}
