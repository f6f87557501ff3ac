//! Names in attributes, validated at compile time by the rules of the runtime.
//!
//! The rules are those of the `name` module of the core crate. A name that passes here but not there
//! is refused when the runtime starts.

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;
use syn::spanned::Spanned;
use syn::{Expr, ExprLit, Lit, LitStr, Path};

use crate::paths::{Paths, at};

/// A name in an attribute, as it is written.
#[derive(Clone)]
pub(crate) enum Name {
    Text(LitStr),
    /// The path of a constant, whose value the compiler validates.
    Constant(Path),
}

impl Name {
    /// A literal or the path of a constant; `None` for anything else.
    pub(crate) fn of(value: &Expr) -> Option<Self> {
        match value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(Self::Text(text.clone())),
            Expr::Path(path) if path.qself.is_none() => Some(Self::Constant(path.path.clone())),
            Expr::Group(group) => Self::of(&group.expr),
            _ => None,
        }
    }

    /// An expression of the name. A constant is validated by this function of the core crate when the
    /// program is compiled.
    pub(crate) fn tokens(&self, function: &str, paths: &Paths) -> TokenStream {
        match self {
            Self::Text(text) => quote_spanned!(Span::mixed_site()=> #text),
            Self::Constant(path) => {
                let span = at(path.span());
                let checked = paths.private_at(span, function);
                quote_spanned!(span=> #checked(#path))
            }
        }
    }
}

/// Validates the key of a stream.
pub(crate) fn stream(name: &Name) -> syn::Result<()> {
    match name {
        Name::Text(text) => check("stream name", text, stream_rule),
        Name::Constant(_) => Ok(()),
    }
}

/// Validates the name of a consumer group.
pub(crate) fn group(name: &Name) -> syn::Result<()> {
    match name {
        Name::Text(text) => check("group name", text, group_rule),
        Name::Constant(_) => Ok(()),
    }
}

/// Validates an event type, which is a field of the entry.
pub(crate) fn event_type(name: &LitStr) -> syn::Result<()> {
    check("event type", name, event_type_rule)
}

fn check(
    what: &str,
    name: &LitStr,
    broken_rule: fn(&str) -> Option<&'static str>,
) -> syn::Result<()> {
    let text = name.value();
    match broken_rule(&text) {
        Some(rule) => {
            let shown = text.chars().take(SHOWN_CHARACTERS_MAX).collect::<String>();
            Err(syn::Error::new(name.span(), format!("invalid {what} {shown:?}: {rule}")))
        }
        None => Ok(()),
    }
}

fn event_type_rule(name: &str) -> Option<&'static str> {
    let reserved = || name.starts_with("sj-").then_some("the prefix sj- belongs to streamjobs");
    common_rule(name).or_else(reserved)
}

fn group_rule(name: &str) -> Option<&'static str> {
    common_rule(name).or_else(|| name.contains(['{', '}']).then_some("braces are not allowed"))
}

fn stream_rule(name: &str) -> Option<&'static str> {
    if let Some(rule) = common_rule(name) {
        return Some(rule);
    }
    let braces = name.matches(['{', '}']).count();
    match hash_tag_end(name) {
        None if braces == 0 => None,
        Some(end) if braces == 2 => {
            let rest = name.get(end + 1..).unwrap_or_default();
            let helper = HELPER_SUFFIXES.iter().any(|suffix| rest.contains(suffix));
            helper.then_some("it looks like a helper key of streamjobs")
        }
        _ => Some("braces are only allowed as one hash tag, as in orders:{acme}"),
    }
}

fn common_rule(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("it is empty")
    } else if name.len() > NAME_BYTES_MAX {
        Some("it is longer than 200 bytes")
    } else if name.chars().any(char::is_control) {
        Some("control characters are not allowed")
    } else {
        None
    }
}

/// The end of a key's hash tag, if it has one.
fn hash_tag_end(name: &str) -> Option<usize> {
    let open = name.find('{')?;
    let length = name.get(open + 1..)?.find('}')?;
    (length > 0).then_some(open + 1 + length)
}

const NAME_BYTES_MAX: usize = 200;
const SHOWN_CHARACTERS_MAX: usize = 64;
const HELPER_SUFFIXES: [&str; 5] = [":lane:", ":retry:", ":retry-records:", ":dead:", ":group:"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_may_have_one_hash_tag_and_groups_none() {
        for good in ["orders", "a:{b}:c", "orders:lane:mail", &"x".repeat(200)] {
            assert_eq!(stream_rule(good), None, "{good}");
        }
        for bad in
            ["", "a{", "a}", "{}a", "a}b{c", "{a}{b}", "a{}b{c}", "{orders}:lane:mail", "a\nb"]
        {
            assert!(stream_rule(bad).is_some(), "{bad} must be refused");
        }
        assert_eq!(group_rule("mail"), None);
        for bad in ["", "{a}", "a\u{7f}", &"x".repeat(201)] {
            assert!(group_rule(bad).is_some(), "{bad} must be refused");
        }
    }
}
