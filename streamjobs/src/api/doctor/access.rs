//! The rules of access lists.

use crate::model::access::Access;
use crate::model::name::StreamName;
use crate::store::redis::needed_commands;

impl Access {
    /// The command that gives a user of the server exactly the rights that this crate needs on these streams and
    /// their helper keys: `ACL SETUSER …` in one line, with commands by name and keys by pattern.
    ///
    /// It removes all other rights to commands, keys and channels, including those of selectors. It does not change
    /// the user's passwords or whether the user is on: a new user also needs `on >password`. Users of a database
    /// other than 0 also need `+select`, users behind Sentinel `+role`, and users of a cluster
    /// `+cluster|slots +asking`. Without streams, the user may use no key. The rule covers the partitions that a
    /// stream has now or will have, unless its name has a hash tag. The server accepts no pattern with a space: `?`
    /// stands for it, so the rule also covers streams whose names have another character there.
    ///
    /// ```
    /// use streamjobs::StreamName;
    /// use streamjobs::doctor::Access;
    ///
    /// let rule = Access::Publish.rule("shop", &[StreamName::new("orders")?]);
    /// assert_eq!(
    ///     rule,
    ///     "ACL SETUSER shop clearselectors resetkeys resetchannels -@all \
    ///      ~orders ~orders:p[0-9]* ~{orders}:partitions \
    ///      +client|setname +evalsha +hget +hset +info +ping +script|load +xadd"
    /// );
    /// # Ok::<(), streamjobs::NameError>(())
    /// ```
    #[must_use]
    pub fn rule(self, user: &str, streams: &[StreamName]) -> String {
        let mut keys = Vec::new();
        for stream in streams {
            let name = literal(stream.as_str());
            keys.push(format!("~{name}"));
            if stream.may_be_spread() {
                // They are named `orders:p1:{1801}`, and their helper keys begin with that.
                keys.push(format!("~{name}:p[0-9]*"));
            }
            match self {
                Self::Publish | Self::Schedule if !stream.may_be_spread() => {}
                Self::Publish | Self::Schedule => {
                    keys.push(format!("~{}", literal(&stream.partitions_key())))
                }
                _ => keys.push(format!("~{}*", literal(&stream.helper_prefix()))),
            }
            if self == Self::Schedule {
                keys.push(format!("~{}*", literal(&stream.later_key())));
                keys.push(format!("~{}*", literal(&stream.unique_key(""))));
            }
        }
        let mut commands = needed_commands(self);
        commands.sort_unstable();
        commands.dedup();
        let commands = commands.into_iter().map(|command| format!("+{}", command.to_lowercase()));
        let rights = ["clearselectors", "resetkeys", "resetchannels", "-@all"];
        let begin = ["ACL", "SETUSER", user].into_iter().chain(rights);
        let words = begin.map(str::to_owned).chain(keys).chain(commands);
        words.map(|word| quoted(&word)).collect::<Vec<_>>().join(" ")
    }
}

/// A pattern of keys that matches only this text, except at white space, which no pattern may have.
fn literal(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '\0' | '\t'..='\r' | ' ') {
            pattern.push('?');
            continue;
        }
        if matches!(character, '*' | '?' | '[' | ']' | '^' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

/// A word as clients of the server read it on a command line.
fn quoted(word: &str) -> String {
    match word.is_empty() || word.contains([' ', '"', '\'', '\\']) {
        true => format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"")),
        false => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(access: Access, streams: &[&str]) -> String {
        let streams = streams.iter().map(|name| StreamName::new(*name).unwrap());
        access.rule("bob", &streams.collect::<Vec<_>>())
    }

    #[test]
    fn the_keys_of_a_rule_are_those_of_the_streams_alone() {
        let text = rule(Access::Work, &["orders", "mail:{acme}"]);
        let keys = text.split(' ').filter(|word| word.starts_with('~')).collect::<Vec<_>>();
        let orders = ["~orders", "~orders:p[0-9]*", "~{orders}:*"];
        assert_eq!(keys, [&orders[..], &["~mail:{acme}", "~mail:{acme}:*"]].concat());
        let text = rule(Access::Publish, &["orders", "mail:{acme}"]);
        let keys = text.split(' ').filter(|word| word.starts_with('~')).collect::<Vec<_>>();
        assert_eq!(keys, ["~orders", "~orders:p[0-9]*", "~{orders}:partitions", "~mail:{acme}"]);
        let text = rule(Access::Schedule, &["orders", "mail:{acme}"]);
        let keys = text.split(' ').filter(|word| word.starts_with('~')).collect::<Vec<_>>();
        let orders = ["~orders", "~orders:p[0-9]*", "~{orders}:partitions", "~{orders}:later*"];
        let mail = ["~mail:{acme}", "~mail:{acme}:later*", "~mail:{acme}:unique:*"];
        assert_eq!(keys, [&orders[..], &["~{orders}:unique:*"], &mail].concat());
        let text = rule(Access::Publish, &["a b*"]);
        let keys = r#" "~a?b\\*" "~a?b\\*:p[0-9]*" "~{a?b\\*}:partitions" +client"#;
        assert!(text.contains(keys), "{text}");
        let text = rule(Access::Work, &["a b"]);
        assert!(text.contains(" ~a?b ~a?b:p[0-9]* ~{a?b}:* "), "{text}");
        assert!(!rule(Access::Operate, &[]).contains('~'));
    }

    #[test]
    fn each_word_of_a_rule_is_one_on_a_command_line() {
        let rule = |user| Access::Publish.rule(user, &[]);
        assert!(rule("").starts_with(r#"ACL SETUSER "" clearselectors "#));
        assert!(rule(r#"a "b"#).starts_with(r#"ACL SETUSER "a \"b" clearselectors "#));
    }

    #[test]
    fn only_who_changes_something_may_write() {
        for writing in ["+xadd", "+xdel", "+del", "+hset", "+set", "+xgroup|create", "+xtrim"] {
            let may = |access| rule(access, &["orders"]).split(' ').any(|word| word == writing);
            assert!(!may(Access::Read), "{writing}");
            assert!(may(Access::Operate), "{writing}");
        }
        for access in Access::ALL {
            let text = rule(access, &["orders"]);
            assert!(!text.contains("config") && !text.contains("+acl"), "{text}");
        }
    }
}
