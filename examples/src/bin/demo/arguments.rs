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
    /// The story of the Postgres companion.
    Postgres(Wish),
    /// The process that charges orders, which is killed in that story. Where its servers are stands
    /// in its environment, which unlike arguments is nobody else's to read.
    Charger,
    Help,
}

/// Which database the Postgres story is to be told on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// A given one, or none for a private server.
    pub(crate) url: Option<String>,
    /// Whether the role of a given one may be a superuser.
    pub(crate) as_superuser: bool,
}

pub(crate) const USAGE: &str = "usage: cargo demo [--redis-url URL]
       cargo demo --postgres [--postgres-url URL [--as-superuser]]

  --redis-url URL      use this server instead of a private one (also: REDIS_URL)
  --postgres           the story of effects once per event, of the archive and of the outbox, on a
                       private Redis and a private Postgres
  --postgres-url URL   tell that story on this database, in a schema of its own that goes afterwards
  --as-superuser       even if the role in that URL is a superuser
  --help               this text";

/// Reads the arguments.
///
/// # Errors
///
/// Names the argument that is wrong.
pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let (mut redis, mut postgres, mut wish) = (None, false, Wish::default());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--help" | "-h" => return Ok(Arguments::Help),
            "--redis-url" => redis = Some(address(&argument, &mut arguments)?),
            "--postgres" => postgres = true,
            "--postgres-url" => wish.url = Some(address(&argument, &mut arguments)?),
            "--as-superuser" => wish.as_superuser = true,
            "--helper" => {
                let url = address(&argument, &mut arguments)?;
                return Ok(Arguments::Helper { url });
            }
            "--charger" => return Ok(Arguments::Charger),
            other => return Err(format!("unknown argument {other:?}")),
        }
    }
    if wish.as_superuser && wish.url.is_none() {
        return Err("--as-superuser is about the role of a --postgres-url".to_owned());
    }
    if !postgres && wish.url.is_none() {
        return Ok(Arguments::Story { url: redis });
    }
    if redis.is_some() {
        return Err("--redis-url is not for the Postgres story: it holds its Redis up".to_owned());
    }
    Ok(Arguments::Postgres(wish))
}

fn address(argument: &str, arguments: &mut impl Iterator<Item = String>) -> Result<String, String> {
    arguments.next().ok_or_else(|| format!("{argument} needs an address behind it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Arguments, String> {
        read(text.split_whitespace().map(str::to_owned))
    }

    fn names(text: &str, argument: &str) -> bool {
        words(text).is_err_and(|fault| fault.contains(argument))
    }

    #[test]
    fn the_address_is_optional_and_unknown_arguments_are_named() {
        assert_eq!(words(""), Ok(Arguments::Story { url: None }));
        let url = Some("redis://h".to_owned());
        assert_eq!(words("--redis-url redis://h"), Ok(Arguments::Story { url }));
        assert!(names("--redis-url", "--redis-url"));
        assert!(names("--reset", "--reset"));
    }

    #[test]
    fn the_postgres_story_is_asked_for_by_its_name_or_by_a_database() {
        let given = |as_superuser| Wish { url: Some("postgres://h/d".to_owned()), as_superuser };
        assert_eq!(words("--postgres"), Ok(Arguments::Postgres(Wish::default())));
        let story = words("--postgres-url postgres://h/d");
        assert_eq!(story, Ok(Arguments::Postgres(given(false))));
        let story = words("--postgres --postgres-url postgres://h/d --as-superuser");
        assert_eq!(story, Ok(Arguments::Postgres(given(true))));
        assert!(names("--postgres-url", "--postgres-url"));
        assert!(names("--postgres --as-superuser", "--as-superuser"));
        assert!(names("--postgres --redis-url redis://h", "--redis-url"));
    }
}
