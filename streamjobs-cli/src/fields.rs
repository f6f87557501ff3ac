//! Fields of entries and dead letters as text and as JSON.

use std::io;

use serde_json::{Map, Value};

use crate::output::Output;

/// Prints all fields in their order, including the payload, except past attempts. Each line starts with `prefix`.
pub(crate) fn print<B: AsRef<[u8]>>(
    prefix: &str,
    fields: &[(B, B)],
    output: &mut Output,
) -> io::Result<()> {
    for (name, value) in fields {
        let (name, value) = (name.as_ref(), value.as_ref());
        // Past attempts are printed as a table.
        if name == b"sj-history" {
            continue;
        }
        let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        output.line(&format!("{prefix}{name}: {value}"))?;
    }
    Ok(())
}

/// All fields in their order, as an array because names can repeat.
pub(crate) fn document<B: AsRef<[u8]>>(fields: &[(B, B)]) -> Value {
    let fields = fields.iter().map(|(name, value)| {
        let mut field = Map::new();
        insert_bytes(&mut field, "name", name.as_ref());
        insert_bytes(&mut field, "value", value.as_ref());
        Value::Object(field)
    });
    fields.collect()
}

/// Text as a string. Other bytes as hexadecimal digits, under the name with the suffix `_hex`.
fn insert_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), text.into()),
        Err(_) => {
            let digits = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            object.insert(format!("{name}_hex"), digits.into())
        }
    };
}
