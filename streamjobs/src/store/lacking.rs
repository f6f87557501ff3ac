//! Commands without which no job is ever done: a user without them cannot start a group.

use crate::model::refusal::Lacking;
use crate::store::server_info::Rights;

/// The first command that the user lacks for the stream of this key.
///
/// Missing rights on helper keys do not prevent a start: the loops report them, and jobs are done
/// all the same.
pub(crate) fn lacking(rights: &Rights, stream: &str) -> Option<Lacking> {
    let on_stream = rights.keys.iter().find(|key| key.key == stream);
    let of_stream = on_stream.map_or(&[][..], |key| &key.missing);
    let keyless = first(ALWAYS, &rights.missing).map(|command| (command, ""));
    let keyed = first(ON_STREAM, of_stream).map(|command| (command, stream));
    let (command, key) = keyless.or(keyed)?;
    if rights.unknown.contains(&command) {
        return Some(Lacking::Command(command));
    }
    // A key that matches no pattern of the user is refused with every command.
    let no_key = on_stream.is_some_and(|key| key.missing.len() == key.tried);
    let grant = match no_key && !key.is_empty() {
        true => format!("~{stream} +{}", command.to_lowercase()),
        false => format!("+{}", command.to_lowercase()),
    };
    let place = if key.is_empty() { String::new() } else { format!(" on {key}") };
    Some(Lacking::Right { user: rights.user.clone(), command, place, grant })
}

fn first(needed: &[&'static str], missing: &[&'static str]) -> Option<&'static str> {
    needed.iter().copied().find(|command| missing.contains(command))
}

/// Commands that are needed whatever the stream: `CLIENT|ID` is sent on each new connection that
/// reads, and every step on a job in flight is a script.
const ALWAYS: &[&str] = &["EVALSHA", "SCRIPT|LOAD", "TIME", "CLIENT|ID"];
const ON_STREAM: &[&str] = &["XREADGROUP", "XACK"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::server_info::KeyRights;

    fn rights(keyless: &[&'static str], stream: &[&'static str]) -> Rights {
        let key = |key: &str, missing: &[&'static str]| KeyRights {
            key: key.to_owned(),
            missing: missing.to_vec(),
            tried: 4,
            publishing: true,
        };
        Rights {
            user: "bob".to_owned(),
            missing: keyless.to_vec(),
            keys: vec![key("{orders}:lane:work", &["XREADGROUP"]), key("orders", stream)],
            named: true,
            ..Rights::default()
        }
    }

    fn text(rights: &Rights) -> Option<String> {
        lacking(rights, "orders").map(|lacking| lacking.to_string())
    }

    #[test]
    fn only_commands_without_which_nothing_is_done_refuse_a_start() {
        assert_eq!(text(&rights(&["CLIENT|UNBLOCK", "CLIENT|SETNAME"], &["XLEN", "XADD"])), None);
        assert_eq!(text(&Rights::default()), None);
    }

    #[test]
    fn the_text_names_command_key_and_grant() {
        let consequence = "and without it no job is ever done;";
        for (rights, expected) in [
            (
                rights(&[], &["XLEN", "XACK"]),
                format!(
                    "user bob has no right to run XACK on orders, {consequence} grant it with ACL SETUSER bob +xack"
                ),
            ),
            (
                rights(&["CLIENT|ID"], &["XACK"]),
                format!(
                    "user bob has no right to run CLIENT|ID, {consequence} grant it with ACL SETUSER bob +client|id"
                ),
            ),
            (
                rights(&[], &["XADD", "XREADGROUP", "XACK", "XLEN"]),
                format!(
                    "user bob has no right to run XREADGROUP on orders, {consequence} grant it with ACL SETUSER bob ~orders +xreadgroup"
                ),
            ),
            (
                Rights { unknown: vec!["CLIENT|ID"], ..rights(&["CLIENT|ID"], &[]) },
                format!(
                    "the server does not know CLIENT|ID, {consequence} remove its rename-command from the server's configuration"
                ),
            ),
        ] {
            assert_eq!(text(&rights), Some(expected));
        }
    }
}
