//! The rules about missing rights.

use super::finding::{Check, Finding};
use crate::insight::severity::Severity;
use crate::store::server_info::{KeyRights, Rights};

/// One finding for commands without a key, and one for each key.
pub(super) fn examine(user: &str, rights: &Rights) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !rights.unknown.is_empty() {
        findings.push(unknown(&rights.unknown));
    }
    let granted = |missing: &[&'static str]| {
        let known = missing.iter().filter(|command| !rights.unknown.contains(*command));
        known.copied().collect::<Vec<_>>()
    };
    let commands = granted(&rights.missing);
    if !commands.is_empty() {
        findings.push(missing(user, &commands, ""));
    }
    findings.extend(rights.keys.iter().filter_map(|key| {
        let commands = granted(&key.missing);
        let tried = key.tried - (key.missing.len() - commands.len());
        let key = &KeyRights { missing: commands, tried, ..key.clone() };
        match rights.named {
            true => on_a_key(user, key),
            false => on_no_key(user, key),
        }
    }));
    findings
}

fn on_a_key(user: &str, key: &KeyRights) -> Option<Finding> {
    if key.missing.is_empty() {
        return None;
    }
    if key.missing.len() < key.tried {
        return Some(missing(user, &key.missing, &format!(" on {}", key.key)));
    }
    Some(Finding::critical(
        Check::Rights,
        format!("user {user} has no rights on {}", key.key),
        "the runtime stores a group's jobs there and cannot run without it",
        format!("add a pattern for the key: ACL SETUSER {user} ~{}", key.key),
    ))
}

/// The finding when no queue was named: a user who is restricted to some keys is refused every
/// command on other keys.
fn on_no_key(user: &str, key: &KeyRights) -> Option<Finding> {
    if key.missing.is_empty() {
        return None;
    }
    if key.missing.len() == key.tried {
        return Some(Finding::info(
            Check::Unchecked,
            format!("whether user {user} may work on streams could not be checked"),
            "the user is restricted to some keys, and no stream was named",
            Some("name the streams and groups that are used".to_owned()),
        ));
    }
    let mut finding = Finding::warning(
        Check::Rights,
        format!("user {user} has no right to run {}", key.missing.join(", ")),
        "a runtime needs all of them; a process that only publishes needs the right to append",
        grant(user, &key.missing),
    );
    if !key.publishing {
        finding.severity = Severity::Critical;
    }
    Some(finding)
}

/// Commands that the server does not know.
fn unknown(commands: &[&'static str]) -> Finding {
    Finding::critical(
        Check::Rights,
        format!("the server has no command {}", commands.join(", ")),
        "the runtime needs them: without them jobs do not run, or run again",
        "remove rename-command of these commands from the server's configuration, or ask its provider",
    )
}

fn missing(user: &str, commands: &[&'static str], place: &str) -> Finding {
    Finding::critical(
        Check::Rights,
        format!("user {user} has no right to run {}{place}", commands.join(", ")),
        "the runtime needs them: without them jobs do not run, or run again",
        grant(user, commands),
    )
}

fn grant(user: &str, commands: &[&'static str]) -> String {
    let rules = commands.iter().map(|command| format!("+{}", command.to_lowercase()));
    format!("allow them: ACL SETUSER {user} {}", rules.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(missing: &[&'static str], tried: usize) -> KeyRights {
        KeyRights { key: "orders".to_owned(), missing: missing.to_vec(), tried, publishing: true }
    }

    fn found(rights: &Rights) -> Vec<(Severity, String)> {
        let findings = examine("bob", rights).into_iter();
        findings.map(|finding| (finding.severity, finding.what)).collect()
    }

    #[test]
    fn a_user_with_all_rights_has_no_finding() {
        for named in [true, false] {
            let rights = Rights { named, keys: vec![key(&[], 9)], ..no_rights() };
            assert_eq!(found(&rights), []);
        }
    }

    #[test]
    fn missing_commands_are_named_with_their_key_and_their_remedy() {
        let rights =
            Rights { named: true, keys: vec![key(&["XCLAIM", "XGROUP|CREATE"], 9)], ..no_rights() };
        let finding = examine("bob", &rights).remove(0);
        assert_eq!(finding.what, "user bob has no right to run XCLAIM, XGROUP|CREATE on orders");
        let advice = finding.advice.unwrap();
        assert_eq!(advice, "allow them: ACL SETUSER bob +xclaim +xgroup|create");
        assert_eq!(finding.severity, Severity::Critical);
    }

    #[test]
    fn a_key_where_nothing_is_allowed_is_one_finding() {
        let rights = Rights { named: true, keys: vec![key(&["XLEN", "XTRIM"], 2)], ..no_rights() };
        let expected = (Severity::Critical, "user bob has no rights on orders".to_owned());
        assert_eq!(found(&rights), [expected]);
    }

    #[test]
    fn without_a_named_queue_a_restricted_user_is_not_a_fault() {
        let all = Rights { keys: vec![key(&["XLEN", "XTRIM"], 2)], ..no_rights() };
        assert_eq!(found(&all)[0].0, Severity::Info);
        let some = Rights { keys: vec![key(&["XCLAIM"], 2)], ..no_rights() };
        assert_eq!(found(&some)[0].0, Severity::Warning, "it may be a publisher");
        let silent = KeyRights { publishing: false, ..key(&["XCLAIM"], 2) };
        let silent = Rights { keys: vec![silent], ..no_rights() };
        assert_eq!(found(&silent)[0].0, Severity::Critical);
    }

    #[test]
    fn a_command_that_the_server_does_not_have_is_no_missing_right() {
        let rights = Rights {
            named: true,
            unknown: vec!["CLIENT|ID", "XTRIM"],
            missing: vec!["CLIENT|ID"],
            keys: vec![key(&["XTRIM"], 9)],
            ..no_rights()
        };
        let what = "the server has no command CLIENT|ID, XTRIM".to_owned();
        assert_eq!(found(&rights), [(Severity::Critical, what)]);
    }

    #[test]
    fn commands_without_a_key_are_always_needed() {
        let rights = Rights { missing: vec!["CLIENT|UNBLOCK"], ..no_rights() };
        let expected =
            (Severity::Critical, "user bob has no right to run CLIENT|UNBLOCK".to_owned());
        assert_eq!(found(&rights), [expected]);
    }

    fn no_rights() -> Rights {
        Rights::default()
    }
}
