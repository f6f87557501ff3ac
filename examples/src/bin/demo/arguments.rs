//! What the demo was asked to do.

/// The demo's tasks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arguments {
    /// The demo itself, on a given server or on a private one.
    Story {
        url: Option<String>,
    },
    /// The second process of the demo, which is killed in it.
    Helper {
        url: String,
    },
    Help,
}

pub(crate) const USAGE: &str = "usage: cargo demo [--redis-url URL]

  --redis-url URL   use this server instead of a private one (also: REDIS_URL)
  --help            this text";

/// Reads the arguments.
///
/// # Errors
///
/// Names the argument that is wrong.
pub(crate) fn read(arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = arguments.peekable();
    let mut url = None;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--help" | "-h" => return Ok(Arguments::Help),
            "--redis-url" => {
                url = Some(arguments.next().ok_or("--redis-url needs an address behind it")?);
            }
            "--helper" => {
                let url = arguments.next().ok_or("--helper needs an address behind it")?;
                return Ok(Arguments::Helper { url });
            }
            other => return Err(format!("unknown argument {other:?}")),
        }
    }
    Ok(Arguments::Story { url })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Arguments, String> {
        read(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_address_is_optional_and_unknown_arguments_are_named() {
        assert_eq!(words(""), Ok(Arguments::Story { url: None }));
        let url = Some("redis://h".to_owned());
        assert_eq!(words("--redis-url redis://h"), Ok(Arguments::Story { url }));
        assert!(words("--redis-url").is_err_and(|fault| fault.contains("--redis-url")));
        assert!(words("--reset").is_err_and(|fault| fault.contains("--reset")));
    }
}
