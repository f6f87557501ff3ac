//! Parses `#[event(...)]`, each option with its span.

use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Attribute, Error, Expr, ExprLit, Ident, Lit, LitStr, Path, Token};

use crate::errors::Errors;
use crate::name::Name;
use crate::suggest;

/// The options of an `#[event(...)]`; only the kinds of the values are checked.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) stream: Option<Name>,
    pub(crate) event_type: Option<LitStr>,
    pub(crate) key: Option<LitStr>,
    pub(crate) unique: Option<LitStr>,
    pub(crate) encoding: Option<LitStr>,
    pub(crate) root: Option<Path>,
    /// Every named option, valid or not.
    named: Vec<String>,
    /// The options that misspelt ones were probably meant to be. These are not reported as missing.
    meant: Vec<String>,
    /// Whether some of it could not be parsed as a list of options.
    unreadable: bool,
}

impl Options {
    /// Whether the option is named with any value, or may be named in a part that could not be
    /// parsed.
    pub(crate) fn names(&self, option: &str) -> bool {
        let mut all = self.named.iter().chain(&self.meant);
        self.unreadable || all.any(|named| named == option)
    }

    fn set(&mut self, setting: &Setting) -> syn::Result<()> {
        let name = setting.name.to_string();
        let wrong = |what: &str, example: &str| {
            let text = format!("`{name}` {what}, as in `{name} = {example}`");
            Error::new(setting.value.as_ref().map_or(setting.name.span(), Spanned::span), text)
        };
        if name == "stream"
            && let Some(value) = &setting.value
        {
            let wrong = || wrong("takes a string or the path of a constant", "\"...\"");
            self.stream = Some(Name::of(value).ok_or_else(wrong)?);
            return Ok(());
        }
        let text = match (&setting.value, name.as_str()) {
            (None, _) => return Err(wrong("needs a value", "\"...\"")),
            (Some(Expr::Path(path)), "crate") => {
                self.root = Some(path.path.clone());
                return Ok(());
            }
            (Some(_), "crate") => return Err(wrong("takes a path", "my::streamjobs")),
            (Some(Expr::Lit(ExprLit { lit: Lit::Str(text), .. })), _) => Some(text.clone()),
            (Some(_), _) => return Err(wrong("takes a string", "\"...\"")),
        };
        match name.as_str() {
            "type" => self.event_type = text,
            "key" => self.key = text,
            "unique" => self.unique = text,
            _ => self.encoding = text,
        }
        Ok(())
    }
}

/// The options of the struct or enum.
pub(crate) fn container(attributes: &[Attribute], errors: &mut Errors) -> Options {
    read(attributes, &["stream", "type", "key", "unique", "encoding", "crate"], errors)
}

/// The options of one variant.
pub(crate) fn variant(attributes: &[Attribute], errors: &mut Errors) -> Options {
    read(attributes, &["type", "key", "unique"], errors)
}

/// One option, as written.
struct Setting {
    name: Ident,
    value: Option<Expr>,
}

impl Parse for Setting {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let name = input.call(Ident::parse_any)?;
        let value = match input.peek(Token![=]) {
            true => {
                input.parse::<Token![=]>()?;
                Some(input.parse::<Expr>()?)
            }
            false => None,
        };
        Ok(Self { name, value })
    }
}

fn read(attributes: &[Attribute], known: &[&str], errors: &mut Errors) -> Options {
    let mut options = Options::default();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("event")) {
        let list = attribute
            .parse_args_with(syn::punctuated::Punctuated::<Setting, Token![,]>::parse_terminated);
        options.unreadable |= list.is_err();
        for option in errors.keep(list).into_iter().flatten() {
            let name = option.name.to_string();
            if !known.contains(&name.as_str()) {
                let text = suggest::unknown_option(&name, known, &ELSEWHERE);
                errors.push(Error::new(option.name.span(), text));
                let meant = suggest::meant(&name, known, &ELSEWHERE);
                options.meant.extend(meant.map(str::to_owned));
                continue;
            }
            if options.named.contains(&name) {
                errors.push(Error::new(option.name.span(), format!("repeated option `{name}`")));
            }
            errors.keep(options.set(&option));
            options.named.push(name);
        }
    }
    options
}

/// The names of options in other systems.
const ELSEWHERE: [(&str, &str); 10] = [
    ("codec", "encoding"),
    ("deduplicate", "unique"),
    ("event", "type"),
    ("event_type", "type"),
    ("format", "encoding"),
    ("name", "type"),
    ("partition_key", "key"),
    ("queue", "stream"),
    ("topic", "stream"),
    ("unique_by", "unique"),
];
