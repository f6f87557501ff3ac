//! The commands that are needed on each key, and which of them the user may not run.

use redis::Cmd;

use super::links::Link;
use super::needs::{Example, KEYLESS, Place, XADD};
use crate::store::redis::reply;
use crate::store::redis::script::scripts;
use crate::store::server_info::{KeyRights, Rights};
use crate::store::{Queue, StoreError};

scripts! {
    RIGHTS = "rights";
}

/// Checks every needed command without running it. Without queues, all commands are checked on one
/// key that is not in use; a user limited to some keys is refused all commands on it.
pub(crate) async fn rights(link: &Link, queues: &[Queue]) -> Result<Rights, StoreError> {
    let (mut tried, mut keys) = (examples_of(KEYLESS, ""), Vec::<(String, Vec<Example>)>::new());
    for queue in queues {
        for place in Place::ALL {
            let key = place.key(queue);
            // The groups of a stream share its key.
            if keys.iter().all(|(known, _)| *known != key) {
                keys.push((key, place.examples()));
            }
        }
    }
    if keys.is_empty() {
        let mut every = Place::ALL.into_iter().flat_map(Place::examples).collect::<Vec<_>>();
        every.sort_unstable();
        every.dedup();
        keys.push((NO_KEY.to_owned(), every));
    }
    for (key, examples) in &keys {
        tried.extend(examples_of(examples, key));
    }
    let mut answers = Vec::with_capacity(tried.len());
    for part in tried.chunks(TRIED_MAX) {
        answers.extend(allowed(link, part).await?);
    }
    let mut answers = answers.into_iter();
    let mut unknown = Vec::new();
    let mut missing_of = |examples: &[Example]| {
        let answered = examples.iter().zip(answers.by_ref().take(examples.len()));
        let refused = answered.filter(|(_, answer)| *answer != Answer::Allowed);
        let refused = refused.map(|((name, _), answer)| {
            if answer == Answer::Unknown && !unknown.contains(name) {
                unknown.push(*name);
            }
            *name
        });
        refused.collect::<Vec<_>>()
    };
    let missing = missing_of(KEYLESS);
    let keys = keys.into_iter().map(|(key, examples)| {
        let missing = missing_of(&examples);
        let publishing = !missing.contains(&XADD);
        KeyRights { key, missing, tried: examples.len(), publishing }
    });
    let keys = keys.collect();
    let user = link.endpoint().user();
    Ok(Rights { user, missing, keys, unknown, named: !queues.is_empty() })
}

/// Whether the user may run a command, which is not run. If the user may not ask, the answer is
/// yes.
pub(crate) async fn may_run(link: &Link, words: &[&str]) -> Result<bool, StoreError> {
    let command = words.iter().map(|word| (*word).to_owned()).collect();
    match allowed(link, &[command]).await {
        Ok(answers) => Ok(!answers.contains(&Answer::Refused)),
        Err(StoreError::Refused { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether a command may be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Allowed,
    Refused,
    /// The server has no command of this name.
    Unknown,
}

/// Whether each command may be run.
async fn allowed(link: &Link, commands: &[Vec<String>]) -> Result<Vec<Answer>, StoreError> {
    let add = |call: &mut Cmd| {
        for words in commands {
            call.arg(words.len()).arg(words);
        }
    };
    let answers = reply::items(link.script(&RIGHTS, &[], add).await?, RIGHTS.name)?;
    if answers.len() != commands.len() {
        return Err(StoreError::Protocol { command: RIGHTS.name });
    }
    let answer = |answer| match reply::size(answer, RIGHTS.name)? {
        0 => Ok(Answer::Refused),
        1 => Ok(Answer::Allowed),
        _ => Ok(Answer::Unknown),
    };
    answers.iter().map(answer).collect()
}

fn examples_of(examples: &[Example], key: &str) -> Vec<Vec<String>> {
    let words = |(_, example): &Example| {
        // In lower case, so that a search for a command on the wire does not find the check for it.
        let words = example.split(' ').map(|word| match word {
            "KEY" => key.to_owned(),
            word => word.to_lowercase(),
        });
        words.collect()
    };
    examples.iter().map(words).collect()
}

/// How many commands one call checks: far fewer than the arguments that a script can unpack.
const TRIED_MAX: usize = 256;
const NO_KEY: &str = "streamjobs";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::super::needs::needed_commands;
    use super::*;
    use crate::model::access::Access;
    use crate::store::redis::script::Script;

    fn all_scripts() -> impl Iterator<Item = &'static Script> {
        crate::store::redis::SCRIPTS.iter().copied().flatten().copied()
    }

    fn tried() -> BTreeSet<&'static str> {
        let keyed = Place::ALL.into_iter().flat_map(Place::examples);
        keyed.chain(KEYLESS.iter().copied()).map(|(name, _)| name).collect()
    }

    #[test]
    fn what_is_tried_is_what_the_documentation_lists() {
        let docs = include_str!("../mod.rs").lines().take_while(|line| line.starts_with("//!"));
        let docs = docs.filter(|line| !line.contains("where it is allowed"));
        let listed = docs.skip(3).flat_map(|line| line.split('`').skip(1).step_by(2));
        let listed = listed.filter(|name| !name.contains(':') && *name != "SELECT");
        assert_eq!(listed.collect::<BTreeSet<_>>(), tried());
    }

    #[test]
    fn every_command_of_the_scripts_is_in_the_list() {
        for script in all_scripts() {
            let calls = script.text.split("call('").skip(1).map(|rest| {
                let mut words = rest.split('\'');
                let name = words.next().unwrap_or_default();
                match (name, words.next(), words.next()) {
                    ("XINFO" | "XGROUP" | "MEMORY", Some(", "), Some(part)) => {
                        format!("{name}|{part}")
                    }
                    _ => name.to_owned(),
                }
            });
            for call in calls {
                let known =
                    Access::ALL.into_iter().flat_map(needed_commands).any(|name| name == call);
                assert!(known, "{}: {call}", script.name);
            }
        }
    }

    #[test]
    fn commands_with_known_faults_are_neither_listed_nor_sent() {
        let sources = sources();
        for word in ["XACKDEL", "XDELEX", "ACKED", "DELREF", "XAUTOCLAIM", "IDMP"] {
            assert!(tried().iter().all(|name| !name.contains(word)));
            let quoted = [format!("'{word}'"), format!("\"{word}\"")];
            let scripts = all_scripts().map(|script| script.text);
            for text in scripts.chain(sources.iter().map(String::as_str)) {
                assert!(quoted.iter().all(|quoted| !text.contains(quoted)), "{word} is sent");
            }
        }
    }

    /// The files that send commands. The files of this folder only name what servers can do.
    fn sources() -> Vec<String> {
        let mut folders = vec![concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/redis").into()];
        let mut sources = Vec::new();
        while let Some(folder) = folders.pop() {
            for file in std::fs::read_dir::<PathBuf>(folder).unwrap() {
                let path = file.unwrap().path();
                if path.is_dir() && !path.ends_with("net") {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    sources.push(std::fs::read_to_string(path).unwrap());
                }
            }
        }
        assert!(sources.len() > 5, "{} files", sources.len());
        sources
    }

    #[test]
    fn an_example_names_its_command_and_its_key() {
        for place in Place::ALL {
            for (name, example) in place.examples() {
                assert!(example.replace(' ', "|").starts_with(name), "{example}");
                assert_eq!(example.matches("KEY").count(), 1, "{example}");
            }
        }
    }
}
