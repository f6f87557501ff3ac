//! The option that an unknown option was probably meant to be.

/// The error for an option that does not exist. It names the option that was meant, or all that
/// exist.
pub(crate) fn unknown_option(name: &str, known: &[&str], elsewhere: &[(&str, &str)]) -> String {
    match meant(name, known, elsewhere) {
        Some(option) => format!("unknown option `{name}`: did you mean `{option}`?"),
        None => {
            let known = known.iter().map(|known| format!("`{known}`")).collect::<Vec<_>>();
            format!("unknown option `{name}`: expected one of {}", known.join(", "))
        }
    }
}

/// The option that has this name in other systems, or the one whose name needs the fewest changes.
pub(crate) fn meant<'a>(
    name: &str,
    known: &[&'a str],
    elsewhere: &[(&str, &'a str)],
) -> Option<&'a str> {
    let name = name.to_lowercase();
    let of_elsewhere = elsewhere.iter().find(|(word, _)| *word == name).map(|(_, option)| *option);
    if let Some(option) = of_elsewhere.filter(|option| known.contains(option)) {
        return Some(option);
    }
    let near = known.iter().map(|option| (distance(&name, option), *option));
    // At most a third of the letters may be wrong, so that a short name is not a wild guess.
    let near = near.filter(|(changes, option)| *changes * 3 <= option.len().max(3));
    near.min_by_key(|(changes, _)| *changes).map(|(_, option)| option)
}

/// How many letters have to be added, removed, replaced or swapped with their neighbour.
fn distance(from: &str, to: &str) -> usize {
    let to = to.chars().collect::<Vec<_>>();
    let mut before_last = Vec::<usize>::new();
    let mut last = (0..=to.len()).collect::<Vec<_>>();
    let mut left = None;
    for (row, letter) in from.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in to.iter().enumerate() {
            let at =
                |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX / 2);
            let replaced = at(&last, column) + usize::from(letter != *other);
            let changed = at(&last, column + 1).min(at(&current, column)) + 1;
            let before = column.checked_sub(1).and_then(|before| Some((before, to.get(before)?)));
            let swapped = match before {
                Some((before, other_before)) if left == Some(*other) && letter == *other_before => {
                    at(&before_last, before) + 1
                }
                _ => usize::MAX / 2,
            };
            current.push(replaced.min(changed).min(swapped));
        }
        left = Some(letter);
        before_last = std::mem::replace(&mut last, current);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_added_removed_replaced_and_swapped_letters() {
        for (from, to, expected) in [
            ("group", "group", 0),
            ("gruop", "group", 1),
            ("grup", "group", 1),
            ("groupp", "group", 1),
            ("grxup", "group", 1),
            ("", "key", 3),
            ("key", "", 3),
            ("time_out", "timeout", 1),
            ("conccurency", "concurrency", 2),
        ] {
            assert_eq!(distance(from, to), expected, "{from} {to}");
        }
    }

    #[test]
    fn a_word_of_another_system_goes_before_a_name_that_looks_alike() {
        let known = ["group", "stream", "every", "zone"];
        assert_eq!(meant("topic", &known, &[("topic", "stream")]), Some("stream"));
        assert_eq!(meant("TZ", &known, &[("tz", "zone")]), Some("zone"));
        assert_eq!(meant("tz", &["group"], &[("tz", "zone")]), None, "not an option here");
    }

    #[test]
    fn what_looks_like_no_option_is_no_guess() {
        let known = ["group", "stream", "key", "type", "every"];
        for name in ["colour", "retries", "kind", "k", "x"] {
            assert_eq!(meant(name, &known, &[]), None, "{name}");
        }
        assert_eq!(meant("typ", &known, &[]), Some("type"));
        assert_eq!(meant("kye", &known, &[]), Some("key"));
    }
}
